use crate::museum::{Museum, mutate, noise, sample, survives};
use annulus::data::formats::table::Table;
use annulus::data::{Dataset, limits};
use serde_json::{Value, json};
use std::fmt::Write;

const SOUND: &str = "age,colour,species\n12,red,wolf\n7,blue,fox\n-1.5,red,fox\n";

fn columns() -> Value {
    json!([
        {"name": "age", "kind": "numeric"},
        {"name": "colour", "kind": "category"},
        {"name": "species", "kind": "label"},
    ])
}

fn data(csv: Value) -> Value {
    json!({"format": "csv", "train": {"files": ["exhibit"]}, "classes": 2, "csv": csv})
}

fn sound() -> Value {
    data(json!({"columns": columns()}))
}

fn samples(museum: &Museum, data: &Value) -> Vec<(Vec<f32>, u32)> {
    let set = museum.open(data).unwrap();
    (0..set.len()).map(|i| sample(&set, i).unwrap()).collect()
}

#[test]
fn features_come_in_the_cards_order_and_categories_and_classes_in_sorted_order() {
    let museum = Museum::new();
    museum.put("exhibit", SOUND.as_bytes());
    let wolf = (vec![12.0, 0.0, 1.0], 1);
    assert_eq!(
        samples(&museum, &sound()),
        [wolf.clone(), (vec![7.0, 1.0, 0.0], 0), (vec![-1.5, 0.0, 1.0], 0)]
    );
    let swapped = json!([columns()[2], columns()[1], columns()[0]]);
    assert_eq!(samples(&museum, &data(json!({"columns": swapped})))[0], (vec![0.0, 1.0, 12.0], 1));
    let mut declared = columns();
    declared[1]["values"] = json!(["red", "green", "blue"]);
    declared[2]["values"] = json!(["wolf", "fox"]);
    assert_eq!(
        samples(&museum, &data(json!({"columns": declared})))[0],
        (vec![12.0, 1.0, 0.0, 0.0], 0)
    );
    // Several files, their columns in another order.
    museum.put("more", b"species,x,colour,age\nfox,,blue,3\n");
    let mut two = sound();
    two["train"]["files"] = json!(["exhibit", "more"]);
    assert_eq!(samples(&museum, &two)[3], (vec![3.0, 1.0, 0.0], 0));
    two["train_limit"] = 1.into();
    assert_eq!(samples(&museum, &two), [wolf]);
}

#[test]
fn a_table_that_does_not_fit_its_memory_is_read_row_by_row_and_is_the_same() {
    let museum = Museum::new();
    let mut text = "\u{feff}n,colour,label\r\n".to_owned();
    for i in 0..500 {
        let colour = ["red", "\"bl\"\"ue,\r\ndark\"", "green"][i % 3].replace("\r\n", " ");
        write!(text, "{i}.5,{colour},{}\r\n{}", i % 2, ["", "\r\n\n"][i % 2]).unwrap();
    }
    museum.put("exhibit", text.as_bytes());
    museum.put("more", b"label,n,colour\n1,-3,red\n0,4,green");
    let mut both = data(json!({"columns": [
        {"name": "n", "kind": "numeric"},
        {"name": "colour", "kind": "category"},
        {"name": "label", "kind": "label"},
    ]}));
    both["train"]["files"] = json!(["exhibit", "more"]);
    let card = museum.card(&both).unwrap().data;
    for limit in [None, Some(501), Some(500), Some(7)] {
        let open = |memory| Table::open(&card, &card.train, limit, memory).unwrap();
        let (kept, tight) = (open(limits::TABLE_MEMORY), open(16 * 100));
        assert_eq!((kept.len(), kept.fingerprint()), (tight.len(), tight.fingerprint()));
        assert_eq!(kept.len(), limit.unwrap_or(502));
        let mut out = [[0.0; 4]; 2];
        for i in 0..kept.len() {
            let labels = [kept.read(i, &mut out[0]).unwrap(), tight.read(i, &mut out[1]).unwrap()];
            assert_eq!((labels[0], out[0]), (labels[1], out[1]), "row {i}");
            assert!(i >= 500 || out[0][0] == i as f32 + 0.5, "row {i}: {out:?}");
        }
    }
    let tight = Table::open(&card, &card.train, None, 0).unwrap();
    museum.put("exhibit", text.replace("2.5", "2.x").as_bytes());
    let error = tight.read(2, &mut [0.0; 4]).unwrap_err().to_string();
    assert!(error.contains("column `n`: `2.x` is not a number; has the file changed?"), "{error}");
}

#[test]
fn missing_values_are_filled_if_the_card_says_so_and_named_if_not() {
    let museum = Museum::new();
    museum.put("exhibit", b"age,colour,species\n,,wolf\n?, NA ,fox\n");
    let mut filled = columns();
    filled[0]["fill"] = "-1".into();
    filled[1]["values"] = json!(["red", "none"]);
    filled[1]["fill"] = "none".into();
    let of = |columns: &Value| data(json!({"columns": columns, "missing": ["NA", "?"]}));
    assert_eq!(
        samples(&museum, &of(&filled)),
        [(vec![-1.0, 0.0, 1.0], 1), (vec![-1.0, 0.0, 1.0], 0)]
    );
    let mut half = filled.clone();
    half[1].as_object_mut().unwrap().remove("fill");
    museum.refuses(&of(&half), 65, &["line 2: column `colour`: the value is missing; give"]);
    half = filled.clone();
    half[0].as_object_mut().unwrap().remove("fill");
    museum.refuses(&of(&half), 65, &["line 2: column `age`: the value is missing"]);
    museum.put("exhibit", b"age,colour,species\n1,red,NA\n2,red,fox\n3,red,wolf\n");
    museum.refuses(&of(&filled), 65, &["line 2: column `species`: the label is missing"]);
    filled[1].as_object_mut().unwrap().remove("values");
    let words =
        ["data.csv.columns: `fill` of `colour` is `none`, which is none of its values: red"];
    museum.refuses(&of(&filled), 78, &words);
}

#[test]
fn files_that_are_no_such_table_are_refused_with_line_and_column() {
    let long = format!("age,colour,species\n1,\"{}\",fox\n", "x".repeat(3 << 20));
    let unclosed = format!("age,colour,species\n1,\"red,fox\n{}", "2,red,wolf\n".repeat(200_000));
    let wide: String = (0..70_000).fold("age,colour,species\n".into(), |mut text, i| {
        writeln!(text, "1,c{i},fox").unwrap();
        text
    });
    let cases: [(&[u8], u8, &str); 25] = [
        (b"", 65, "the file is empty"),
        (b"\n\n", 65, "has no rows"),
        (b"age,colour,species\n", 65, "has no rows"),
        (
            b"age,color,species\n1,red,fox\n",
            65,
            "line 1: there is no column `colour`; the columns are age, color, species",
        ),
        (
            b"age,age,colour,species\n1,2,red,fox\n3,4,red,wolf\n",
            65,
            "line 1: two columns are named `age`",
        ),
        (
            b"age,colour,species\n1,red,fox\n2,red\n",
            65,
            "line 3: has 2 cells where the first row has 3",
        ),
        (b"age,colour,species\n1,red,fox,\n", 65, "line 2: has 4 cells where the first row has 3"),
        (
            b"age,colour,species\r\n\r\n1,red,fox\r\nx,red,wolf\r\n",
            65,
            "line 4: column `age`: `x` is not a number",
        ),
        (
            b"\n\nage,colour,species\n\n\nx,red,wolf\n1,red,fox",
            65,
            "line 6: column `age`: `x` is not",
        ),
        (
            b"age,colour,species\n\"1\n2\",red,fox\nx,red,wolf\n",
            65,
            "line 2: column `age`: holds a line break",
        ),
        (
            b"age,colour,species\n1,red,fox\nnan,red,wolf\n",
            65,
            "line 3: column `age`: `nan` is not finite",
        ),
        (b"age,colour,species\n1,red,fox\n-inf,red,wolf\n", 65, "`-inf` is not finite"),
        (b"age,colour,species\n1,red,fox\n1e999,red,wolf\n", 65, "`1e999` is not finite"),
        (b"age,colour,species\n1,red,fox\n1e39,red,wolf\n", 65, "1e39 does not fit 32 bits"),
        (b"age,colour,species\n1,red,fox\n1_000,red,wolf\n", 65, "`1_000` is not a number"),
        (
            b"age,colour,species\n1,r\xe9d,fox\n2,red,wolf\n",
            65,
            "line 2: column `colour`: is not UTF-8 (byte e9)",
        ),
        (b"a\0g\0e\0\n\0", 65, "line 1: there is no column `colour`"),
        (b"age,colour,species\n1,r\0d,fox\n2,red,wolf\n", 65, "column `colour`: holds a zero byte"),
        (
            b"age,colour,species\n1,\x1b[31m,fox\n2,red,wolf\n",
            65,
            "holds the control character \\u{1b}",
        ),
        (
            b"age,colour,species\n1,red,fox\n2,red,\"wolf\n",
            65,
            "line 3: column `species`: holds a line break",
        ),
        (
            b"age,colour,species\n1,red,fox\n2,red,wolf\n3,red,owl\n",
            78,
            "column `species` has 3 classes: fox, owl, wolf",
        ),
        (b"\x1f\x8b\x08 and more than 18 bytes", 65, "is packed with gzip"),
        (long.as_bytes(), 65, "line 2: is longer than 1048576 bytes; is a quote missing"),
        (unclosed.as_bytes(), 65, "line 2: is longer than 1048576 bytes"),
        (wide.as_bytes(), 65, "line 65538: column `colour`: more than 65536 values"),
    ];
    let museum = Museum::new();
    for (bytes, code, word) in cases {
        museum.put("exhibit", bytes);
        let words = ["data.train: ", word];
        let error = museum.refuses(&sound(), code, &words);
        assert!(code == 78 || error.to_string().contains("exhibit: "), "{error}");
    }
}

#[test]
fn the_test_rows_have_the_values_of_the_training_rows() {
    let museum = Museum::new();
    museum.put("exhibit", SOUND.as_bytes());
    let mut both = sound();
    both["test"] = json!({"files": ["held"]});
    museum.put("held", b"colour,age,species\nred,1,wolf\n");
    let card = museum.card(&both).unwrap().data;
    let test = annulus::data::open(&card).unwrap().1.unwrap();
    assert_eq!(sample(&test, 0).unwrap(), (vec![1.0, 0.0, 1.0], 1));
    museum.put("held", b"colour,age,species\nred,1,wolf\nyellow,1,fox\n");
    let words = [
        "data.test: ",
        "held: line 3: column `colour`: `yellow` is not one of its values: blue, red",
    ];
    museum.refuses(&both, 65, &words);
    museum.put("held", b"colour,age,species\nred,1,owl\n");
    museum.refuses(
        &both,
        65,
        &["line 2: column `species`: `owl` is not one of the classes: fox, wolf"],
    );
}

#[test]
fn labels_that_are_whole_numbers_are_the_classes() {
    let museum = Museum::new();
    museum.put("exhibit", b"age,colour,species\n1,red,10\n2,red,2\n");
    let mut many = sound();
    many["classes"] = 11.into();
    let labels: Vec<u32> = samples(&museum, &many).iter().map(|(_, label)| *label).collect();
    assert_eq!(labels, [10, 2]);
    many["classes"] = 10.into();
    museum.refuses(
        &many,
        65,
        &["line 2: column `species`: `10` is not a whole number from 0 to 9"],
    );
}

#[test]
fn a_card_that_does_not_describe_a_table_is_told_all_that_is_wrong() {
    let museum = Museum::new();
    museum.put("exhibit", SOUND.as_bytes());
    for (csv, words) in [
        (json!({"columns": []}), &["columns: have 0 of kind `label`", "have no feature"][..]),
        (json!({"columns": [columns()[0]]}), &["columns: have 0 of kind `label`"]),
        (
            json!({"columns": columns(), "delimiter": ";;"}),
            &["data.csv.delimiter: is not one ASCII"],
        ),
        (
            json!({"columns": columns(), "delimiter": "é"}),
            &["data.csv.delimiter: is not one ASCII"],
        ),
        (json!({"columns": columns(), "quote": ","}), &["data.csv.quote: is the same as"]),
        (
            json!({"columns": columns(), "header": false}),
            &["data.csv.columns.0.name: is no number"],
        ),
        (
            json!({"columns": [
                {"name": "a", "kind": "numeric", "values": ["1"], "fill": "x", "std": 0},
                {"name": "a", "kind": "category", "values": ["1", "1"], "fill": "2", "mean": 1},
                {"name": "c", "kind": "label", "fill": "2"},
            ]}),
            &["columns.0.std: 0 is not a number above 0"],
        ),
        (
            json!({"columns": [
                {"name": "a", "kind": "numeric", "values": ["1"], "fill": "x"},
                {"name": "a", "kind": "category", "values": ["1", "1"], "fill": "2", "mean": 1},
                {"name": "c", "kind": "label", "fill": "2"},
            ]}),
            &[
                "columns.0.values: is used by category and label only",
                "columns.0.fill: is no number",
                "columns.1.name: is the name of an earlier",
                "columns.1.values: names a value twice",
                "columns.1.fill: is not one of the values",
                "columns.1.mean: is used by numeric and target only",
                "columns.2.fill: is not for labels",
            ],
        ),
    ] {
        museum.refuses(&data(csv), 78, words);
    }
    let mut none = sound();
    none.as_object_mut().unwrap().remove("csv");
    museum.refuses(&none, 78, &["data.csv: is missing; say which columns are used"]);
    let mut pixels = sound();
    pixels["normalize"] = json!({"mean": 0.5});
    museum.refuses(&pixels, 78, &["data.normalize: is not used by tables (csv, parquet)"]);
    let number =
        |name: &str| json!([{"name": name, "kind": "numeric"}, {"name": "3", "kind": "label"}]);
    let headless = |name| data(json!({"columns": number(name), "header": false}));
    museum.put("exhibit", b"1,2,0\n3,4,1\n");
    assert_eq!(samples(&museum, &headless("2")), [(vec![2.0], 0), (vec![4.0], 1)]);
    museum.refuses(
        &headless("4"),
        65,
        &["line 1: there is no column `4`; the columns are 1, 2, 3"],
    );
}

#[test]
fn no_mutation_makes_the_csv_reader_panic() {
    let museum = Museum::new();
    museum.put("exhibit", SOUND.as_bytes());
    let (taken, refused) = survives(&museum, &sound(), 3000, |rng| {
        let mut bytes = SOUND.as_bytes().to_vec();
        mutate(&mut bytes, 24, rng);
        museum.put("exhibit", &bytes);
    });
    assert!(taken > 100 && refused > 1000, "{taken} {refused}");
}

#[test]
fn no_change_of_a_file_in_use_makes_the_csv_reader_panic() {
    let museum = Museum::new();
    let text = format!("{SOUND}{}", "3,red,wolf\n".repeat(20));
    museum.put("exhibit", text.as_bytes());
    let card = museum.card(&sound()).unwrap().data;
    let table = Table::open(&card, &card.train, None, 0).unwrap();
    let mut refused = 0;
    for case in 0..1000 {
        let mut bytes = text.as_bytes().to_vec();
        mutate(&mut bytes, 200, &mut noise(case));
        museum.put("exhibit", &bytes);
        for i in 0..table.len() {
            let Err(error) = table.read(i, &mut [0.0; 3]) else { continue };
            assert!([65, 70, 74].contains(&error.exit_code()), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}
