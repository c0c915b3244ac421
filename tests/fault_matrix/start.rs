//! Ranks that do not come, or come with something else in their hands.

use super::common::{BOTH, Job, Mpi, launched, root};
use super::with_sets;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::tempdir;

/// A program that does `first` with the rank in `$RANK`, and then is annulus.
fn wrapped(folder: &Path, mpi: Mpi, first: &str) -> PathBuf {
    let (path, binary) = (folder.join("wrapper.sh"), mpi.binary());
    let text = format!(
        "#!/bin/sh\nRANK=${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}\nPROGRAM={}\n{first}\nexec \"$PROGRAM\" \"$@\"\n",
        binary.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn train(folder: &Path, mpi: Mpi, ranks: usize, first: &str) -> Job {
    with_sets(launched(mpi, ranks, &wrapped(folder, mpi, first)), &folder.join("run"))
}

#[test]
fn a_rank_that_never_comes_is_named_when_the_start_has_taken_too_long() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let ended = train(folder.path(), mpi, 3, "[ \"$RANK\" = 1 ] && exec sleep 30")
            .env("ANNULUS_START_TIMEOUT_S", "2")
            .run();
        assert_ne!(ended.code, 0, "{}", ended.all_output());
        let said = ended.complaints();
        assert_eq!(said.len(), 1, "{}", ended.all_output());
        let parts =
            ["until all 3 ranks have come", "have come: 0, 2;", "missing here: rank 1 (pid "];
        for part in parts.into_iter().chain(["which runs `sleep`)"]) {
            assert!(said[0].contains(part), "{part}: {}", said[0]);
        }
        assert!(ended.took < Duration::from_secs(6), "{:?}", ended.took);
    }
}

#[test]
fn a_rank_with_another_program_is_refused() {
    for mpi in BOTH {
        let folder = tempdir().unwrap();
        let first =
            "[ \"$RANK\" = 2 ] && cp \"$PROGRAM\" ./other && echo >> ./other && PROGRAM=./other";
        let ended = train(folder.path(), mpi, 3, first).current_dir(folder.path()).run();
        assert_ne!(ended.code, 0, "{}", ended.all_output());
        let said = ended.complaints().join("\n");
        assert!(said.contains("do not agree on the program: rank 0"), "{}", ended.all_output());
        assert!(said.contains("rank 2"), "{said}");
    }
}

#[test]
fn a_rank_with_other_data_under_the_same_names_is_refused() {
    let folder = tempdir().unwrap();
    let mnist = root().join("data/mnist");
    for rank in 0..2 {
        let data = folder.path().join(format!("rank{rank}"));
        std::fs::create_dir_all(&data).unwrap();
        let name = "train-labels-idx1-ubyte.gz";
        std::fs::copy(mnist.join(name), data.join(name)).unwrap();
    }
    // 60,000 labels, all 3, where rank 0 has the true ones.
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0xea, 0x60];
    labels.resize(labels.len() + 60_000, 3);
    std::fs::write(folder.path().join("rank1/train-labels-idx1-ubyte.gz"), labels).unwrap();
    let ended = train(folder.path(), Mpi::Open, 2, "cd \"rank$RANK\"")
        .set("data.train.labels=/proc/self/cwd/train-labels-idx1-ubyte.gz")
        .current_dir(folder.path())
        .run();
    assert_ne!(ended.code, 0, "{}", ended.all_output());
    let said = ended.complaints().join("\n");
    assert!(said.contains("do not agree on the training data: rank 0"), "{}", ended.all_output());
}
