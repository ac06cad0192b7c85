//! Importing digests on the command line.

use std::fmt::Write as _;

use super::Binary;

#[test]
fn a_hundred_thousand_rows_with_errors_among_them() {
    let binary = Binary::new();
    let mut csv = String::from("sha256,owner_type,owner_id,description\n");
    for n in 0..100_000 {
        // Every ten thousandth row is wrong: line numbers 2, 10002, …
        let kind = if n % 10_000 == 0 { "robot" } else { "user" };
        let _ = writeln!(csv, "{n:064x},{kind},u{n},imported");
    }
    binary.write("keys.csv", &csv);
    let ran = binary.run("keys import keys.csv");
    ran.fails(1, &["imported 99990, already stored 0, refused 10"]);
    let errors: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("line "))
        .collect();
    assert_eq!(errors.len(), 10, "{errors:?}");
    assert!(errors[0].starts_with("line 2: "), "{errors:?}");
    assert!(errors[9].starts_with("line 90002: "), "{errors:?}");
    assert!(
        errors.iter().all(|line| line.contains("owner_type")),
        "{errors:?}"
    );

    // Again: everything is there already, and stays as it was.
    let ran = binary.run("keys import keys.csv");
    ran.fails(1, &["imported 0, already stored 99990, refused 10"]);
}

#[test]
fn imported_keys_are_found_by_their_value() {
    let binary = Binary::new().with("RESCIND__KEYS__PEPPERS", r#"["a pepper of 23 bytes.."]"#);
    let digest = rescind::keyformat::KeyValue::new("acme_live_1")
        .sha256()
        .to_hex();
    let row = format!(
        r#"{{"sha256":"{digest}","owner_type":"team","owner_id":"acme","last_four":"ve_1","expires_at":"2031-01-01T00:00:00Z"}}"#
    );
    binary
        .run_with(["keys", "import", "-", "--project", "web"], &row)
        .ok();
    let checked = binary
        .run_with(["keys", "check", "--json"], "acme_live_1")
        .ok();
    let checked: serde_json::Value = serde_json::from_str(&checked).expect("JSON");
    assert_eq!(checked["project"], "web");
    assert_eq!(checked["expires_at"], "2031-01-01T00:00:00Z");
}

#[test]
fn files_that_are_no_import_are_refused() {
    let binary = Binary::new();
    for (text, said) in [
        ("a,b,c\n1,2,3\n", "the first line has to name the columns"),
        ("{\"sha256\": 1}\n", "sha256"),
        ("{broken\n", "line 1"),
    ] {
        let ran = binary.run_with(["keys", "import", "-"], text);
        ran.fails(1, &[said, "imported 0"]);
    }
    // Nothing in, nothing wrong; a folder is no file.
    binary
        .run_with(["keys", "import", "-"], "")
        .fails(0, &["imported 0"]);
    binary
        .run_with(["keys", "import", "."], "")
        .fails(2, &["cannot read ."]);
}

#[test]
fn a_row_with_a_blank_description_is_imported_and_a_far_end_is_never() {
    let binary = Binary::new();
    let far = "9999-12-31T23:59:59Z";
    let csv = format!(
        "sha256,owner_type,owner_id,description,expires_at\n\
         {:064x},user,u,a,{far}\n{:064x},user,u,  ,\n{:064x},user,u,,\n{:064x},user,u,\"\u{a0}\",\n\
         {:064x},user,u,b,9998-01-01T00:00:00Z\n",
        1, 2, 3, 4, 5
    );
    let ran = binary.run_with(["keys", "import", "-"], &csv);
    assert!(
        ran.stderr
            .contains("imported 5, already stored 0, refused 0"),
        "{ran:?}"
    );
    ran.ok();
    let rows = format!(
        "{{\"sha256\":\"{:064x}\",\"owner_type\":\"user\",\"owner_id\":\"u\",\"description\":\" \"}}\n\
         {{\"sha256\":\"{:064x}\",\"owner_type\":\"user\",\"owner_id\":\"u\",\"expires_at\":\"{far}\"}}\n",
        6, 7
    );
    let ran = binary.run_with(["keys", "import", "-"], &rows);
    assert!(
        ran.stderr
            .contains("imported 2, already stored 0, refused 0"),
        "{ran:?}"
    );
    ran.ok();
    let rows = format!(
        "sha256,owner_type,owner_id,created_at\n{:064x},user,u,{far}\n{:064x},user,\u{a0},\n",
        8, 9
    );
    let said = [
        "line 2: `created_at` has to be a time",
        "line 3: `owner_id` is required",
    ];
    binary
        .run_with(["keys", "import", "-"], &rows)
        .fails(1, &said);
    let listed = binary.run("keys list --json").ok();
    let ends: Vec<serde_json::Value> = listed
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["expires_at"].clone()
        })
        .collect();
    assert_eq!(ends.len(), 7);
    let known: Vec<&serde_json::Value> = ends.iter().filter(|end| !end.is_null()).collect();
    assert_eq!(known, ["9998-01-01T00:00:00Z"]);
}
