use crate::museum::{Museum, below, mutate, sample, survives};
use serde_json::{Value, json};

/// Samples with labels 0, 1, …; every byte of sample i's pixels is i, plus 1, 2, 3 by channel.
fn samples(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, labels) in labels.iter().enumerate() {
        bytes.extend(*labels);
        (1..4).for_each(|channel| bytes.extend([i as u8 + channel; 1024]));
    }
    bytes
}

fn data(format: &str, files: &[&str]) -> Value {
    let classes = match format {
        "cifar10" => 10,
        "cifar100" => 100,
        _ => 20,
    };
    json!({"format": format, "train": {"files": files}, "classes": classes})
}

#[test]
fn several_files_follow_one_another_channels_first() {
    let museum = Museum::new();
    museum.put("a", &samples(&[&[3], &[9], &[0]]));
    museum.put("b", &samples(&[&[7]]));
    let set = museum.open(&data("cifar10", &["a", "b"])).unwrap();
    assert_eq!((set.len(), set.sample_shape(), set.classes()), (4, &[3, 32, 32][..], 10));
    let seen = [0, 1, 2, 3].map(|i| sample(&set, i).unwrap());
    assert_eq!([0, 1, 2, 3].map(|i| seen[i].1), [3, 9, 0, 7]);
    for (place, value) in [(0, 3.0), (1023, 3.0), (1024, 4.0), (3071, 5.0)] {
        assert_eq!(seen[2].0[place], value / 255.0);
    }
    assert_eq!(seen[3].0[0], 1.0 / 255.0);
    assert!(sample(&set, 4).is_err() && set.read(0, &mut [0.0; 3071]).is_err());
}

#[test]
fn cifar_100_has_fine_and_coarse_labels() {
    let museum = Museum::new();
    museum.put("a", &samples(&[&[19, 99], &[4, 0]]));
    let labels = |format| {
        let set = museum.open(&data(format, &["a"])).unwrap();
        [0, 1].map(|i| sample(&set, i).unwrap().1)
    };
    assert_eq!(labels("cifar100"), [99, 0]);
    assert_eq!(labels("cifar100-coarse"), [19, 4]);
}

#[test]
fn the_fingerprint_is_of_the_samples_that_are_used() {
    let museum = Museum::new();
    museum.put("a", &samples(&[&[3], &[9], &[0]]));
    museum.put("b", &samples(&[&[7], &[8]]));
    museum.put("c", &samples(&[&[7], &[1]]));
    let of = |files: &[&str], limit: usize| {
        let mut data = data("cifar10", files);
        data["train_limit"] = limit.into();
        let set = museum.open(&data).unwrap();
        assert_eq!(set.len(), limit.min(5));
        set.fingerprint()
    };
    assert_eq!(of(&["a", "b"], 5), of(&["a", "b"], 99));
    assert_ne!(of(&["a", "b"], 5), of(&["a", "c"], 5));
    assert_eq!(of(&["a", "b"], 4), of(&["a", "c"], 4));
    assert_eq!(of(&["a", "b"], 2), of(&["a", "c"], 2));
    assert_ne!(of(&["a", "b"], 4), of(&["b", "a"], 4));
}

#[test]
fn files_that_are_no_cifar_are_refused() {
    let museum = Museum::new();
    let two = samples(&[&[3], &[9]]);
    let refuses = |format, bytes: &[u8], words: &[&str]| {
        museum.put("exhibit", bytes);
        let words = [&["data.train: ", "exhibit: "], words].concat();
        museum.refuses(&data(format, &["exhibit"]), 65, &words);
    };
    refuses("cifar10", b"", &["the file is empty"]);
    for cut in [1, 3072, 3074, 6145] {
        let rest = format!("{} samples of 3073 bytes and {} bytes over", cut / 3073, cut % 3073);
        refuses("cifar10", &two[..cut], &[&rest]);
    }
    refuses("cifar10", &samples(&[&[3, 4]]), &["would fit CIFAR-100"]);
    refuses("cifar100", &samples(&[&[3]]), &["would fit CIFAR-10"]);
    refuses(
        "cifar10",
        &samples(&[&[3], &[10]]),
        &["label 10 of sample 1 (byte 3073) is not below 10"],
    );
    refuses("cifar100", &samples(&[&[3, 100]]), &["label 100 of sample 0 (byte 1)"]);
    refuses("cifar100-coarse", &samples(&[&[20, 3]]), &["label 20 of sample 0 (byte 0)"]);
    refuses("cifar10", &[&[0x1f, 0x8b, 8][..], &two[3..]].concat(), &["tar -xzf"]);
    museum.put("exhibit", &two);
    let mut wrong = data("cifar10", &["exhibit"]);
    wrong["classes"] = 12.into();
    museum.refuses(&wrong, 78, &["data.classes: is 12; this format has 10 classes"]);
    museum.refuses(&data("cifar10", &["exhibit", "absent"]), 66, &["absent: no such file"]);
    museum.refuses(&data("cifar10", &["."]), 66, &["it is a folder"]);
}

#[test]
fn a_card_that_does_not_name_the_files_is_told_which_field() {
    let museum = Museum::new();
    museum.refuses(
        &data("cifar10", &[]),
        78,
        &["data.train.files: is missing; data.format `cifar10`"],
    );
    museum.refuses(&data("cifar10", &[""]), 78, &["data.train.files: is empty"]);
    museum.refuses(&data("cifar10", &["a", "a"]), 78, &["data.train.files: names", "a twice"]);
    let mut both = data("cifar10", &["a"]);
    both["train"]["labels"] = "b".into();
    museum.refuses(&both, 78, &["data.train.labels: is not used by data.format `cifar10`"]);
}

#[test]
fn a_file_that_is_cut_while_in_use_is_an_error_with_its_name() {
    let museum = Museum::new();
    let path = museum.put("exhibit", &samples(&[&[3], &[9]]));
    let set = museum.open(&data("cifar10", &["exhibit"])).unwrap();
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(4000).unwrap();
    assert!(sample(&set, 0).is_ok());
    let error = sample(&set, 1).unwrap_err();
    assert!(error.exit_code() == 74 && error.to_string().contains("was it cut"), "{error}");
}

#[test]
fn no_mutation_makes_the_reader_panic() {
    let museum = Museum::new();
    let sound = samples(&[&[3], &[9], &[0]]);
    museum.put("exhibit", &sound);
    let (taken, refused) = survives(&museum, &data("cifar10", &["exhibit"]), 1000, |rng| {
        let mut bytes = sound.clone();
        mutate(&mut bytes, 2, rng);
        // Whole samples only, often.
        bytes.truncate(bytes.len() / 3073 * 3073 + below(rng, 2));
        museum.put("exhibit", &bytes);
    });
    assert!(taken > 50 && refused > 50, "{taken} {refused}");
}
