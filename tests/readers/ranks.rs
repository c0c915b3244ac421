//! The same data at 1, 2 and 3 ranks gives the same steps, whatever the format.

use crate::common::{Mpi, hash, metrics, under};
use crate::museum::{Museum, below, noise};
use crate::pictures::png;
use crate::shards::{end, file};
use crate::tensors::tensors;
use serde_json::{Value, json};

/// In reproducible mode the same steps are the same bits.
fn same_bits_at_any_rank_count(museum: &Museum, data: &Value) {
    let card = museum.card(data).unwrap();
    let path = museum.put("card.json", card.to_json_pretty().unwrap().as_bytes());
    let run = |ranks: usize| {
        let out = museum.path(&format!("run-{ranks}"));
        under(Mpi::Open, ranks)
            .arg_paths(["train"], &[&path])
            .arg_paths(["--out"], &[&out])
            .set("train.epochs=2")
            .set("reproducible={\"leaves\": 4}")
            .succeed();
        assert!(metrics(&out, "step").len() > 4);
        hash(&out)
    };
    let one = run(1);
    assert!(one.is_string());
    for ranks in [2, 3] {
        assert_eq!(run(ranks), one, "{ranks} ranks differ from one: {data}");
    }
}

#[test]
fn cifar() {
    let museum = Museum::new();
    let mut rng = noise(1);
    for (file, samples) in [("a", 21), ("b", 30)] {
        let mut bytes = Vec::new();
        for i in 0..samples {
            bytes.push(i % 10);
            bytes.extend((0..3072).map(|_| below(&mut rng, 256) as u8));
        }
        museum.put(file, &bytes);
    }
    let data = json!({"format": "cifar10", "train": {"files": ["a", "b"]}, "classes": 10});
    same_bits_at_any_rank_count(&museum, &data);
}

#[test]
fn pictures() {
    let museum = Museum::new();
    let mut rng = noise(2);
    for i in 0..40 {
        let mut pixels = image::GrayImage::new(6, 5);
        pixels.iter_mut().for_each(|pixel| *pixel = below(&mut rng, 256) as u8);
        let path = museum.path(&format!("data/{}", ["ant", "bee", "cat"][i % 3]));
        std::fs::create_dir_all(&path).unwrap();
        pixels.save(path.join(format!("{i}.png"))).unwrap();
    }
    let pictures = json!({"color": "grey", "resize": [4, 4]});
    let train = json!({"folder": "data"});
    let data = json!({"format": "folder", "train": train, "classes": 3, "pictures": pictures});
    same_bits_at_any_rank_count(&museum, &data);
}

#[test]
fn shards() {
    let museum = Museum::new();
    let mut rng = noise(4);
    for (archive, samples) in [("a.tar", 21), ("b.tar", 30)] {
        let members: Vec<_> = (0..samples)
            .flat_map(|i| {
                let color = [0; 3].map(|_| below(&mut rng, 256) as u8);
                let picture = file(&format!("{i}.png"), &png([3, 4], color));
                [picture, file(&format!("{i}.cls"), (i % 3).to_string().as_bytes())]
            })
            .collect();
        museum.put(archive, &end(&members));
    }
    let files = ["a.tar", "b.tar"].map(|name| museum.path(name));
    let data = json!({"format": "tar", "train": {"files": files}, "classes": 3});
    same_bits_at_any_rank_count(&museum, &data);
}

#[test]
fn safetensors() {
    let museum = Museum::new();
    let mut rng = noise(5);
    for (name, samples) in [("a", 21u64), ("b", 30)] {
        let x: Vec<u8> = (0..samples * 12).map(|_| below(&mut rng, 256) as u8).collect();
        let y: Vec<u8> = (0..samples).map(|i| (i % 3) as u8).collect();
        let list = [("x", "U8", &[samples, 3, 4][..], &x[..]), ("y", "U8", &[samples], &y)];
        museum.put(name, &tensors(&list));
    }
    let files = ["a", "b"].map(|name| museum.path(name));
    let data = json!({"format": "safetensors", "train": {"files": files}, "classes": 3});
    same_bits_at_any_rank_count(&museum, &data);
}

#[test]
fn tables() {
    let museum = Museum::new();
    let mut rng = noise(3);
    let mut text = "a,b,label\n".to_owned();
    for i in 0..50 {
        text += &format!("{},{},{}\n", below(&mut rng, 100), ["x", "y"][i % 2], i % 3);
    }
    museum.put("table.csv", text.as_bytes());
    let columns = json!([
        {"name": "a", "kind": "numeric", "mean": 50, "std": 30},
        {"name": "b", "kind": "category"},
        {"name": "label", "kind": "label"},
    ]);
    let train = json!({"files": ["table.csv"]});
    let data = json!({"format": "csv", "train": train, "classes": 3, "csv": {"columns": columns}});
    same_bits_at_any_rank_count(&museum, &data);
}

#[test]
fn a_model_of_images_is_refused_for_a_table_before_training() {
    let museum = Museum::new();
    museum.put("table.csv", b"a,label\n1,0\n2,1\n");
    let columns = json!([{"name": "a", "kind": "numeric"}, {"name": "label", "kind": "label"}]);
    let train = json!({"files": ["table.csv"]});
    let data = json!({"format": "csv", "train": train, "classes": 2, "csv": {"columns": columns}});
    let mut card = museum.card(&data).unwrap();
    card.model = serde_json::from_value(json!({"kind": "lenet5"})).unwrap();
    let path = museum.put("card.json", card.to_json_pretty().unwrap().as_bytes());
    let out = museum.path("run");
    let ended =
        under(Mpi::Open, 2).arg_paths(["train"], &[&path]).arg_paths(["--out"], &[&out]).run();
    assert_eq!(ended.code, 78, "{}", ended.all_output());
    assert!(ended.stderr.contains("model.kind: `lenet5` takes images"), "{}", ended.stderr);
}
