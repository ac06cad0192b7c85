//! Clients that others' tools make of the description, used against the real binary. `./test.sh` installs the tools:
//! without them these tests fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use rescind::forge::Forge;
use rescind::intake::PartnerName;
use tempfile::TempDir;

use crate::cli::Binary;
use crate::serve::Daemon;

/// Returns the folder with the tools.
fn tools() -> PathBuf {
    let named = std::env::var_os("RESCIND_TEST_CLIENTS").map(PathBuf::from);
    let tools =
        named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients"));
    assert!(
        tools.join("venv").is_dir(),
        "{} lacks the tools: ./test.sh installs them",
        tools.display()
    );
    tools
}

fn python(program: &str) -> Command {
    Command::new(tools().join("venv/bin").join(program))
}

/// Returns the folder of what uses the clients.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a command, which has to end well, and returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let ran = command.output();
    let output = ran.unwrap_or_else(|error| panic!("{command:?}: {error}; ./test.sh installs it"));
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out
}

/// Writes the description to a new folder.
fn described() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let document = rescind::server::document();
    std::fs::write(folder.path().join("openapi.json"), document).unwrap();
    folder
}

/// A daemon with every endpoint, its address, and an access token for it.
fn daemon() -> (Daemon, Binary, [String; 2]) {
    let mut binary = Binary::new().with(
        "RESCIND__PARTNERS__GITLAB__REVOCATION_TOKENS",
        r#"["0123456789abcdef0123456789abcdef"]"#,
    );
    for partner in PartnerName::ALL.map(|partner| partner.name().to_uppercase()) {
        let of = |key: &str| format!("RESCIND__PARTNERS__{partner}__{key}");
        binary = binary
            .with(&of("ENABLED"), "true")
            .with(&of("PUBLIC_KEYS_URL"), "http://127.0.0.1:1/keys");
    }
    for forge in Forge::ALL.map(|forge| forge.name().to_uppercase()) {
        let secrets = r#"["0123456789abcdef0123456789abcdef"]"#;
        binary = binary.with(&format!("RESCIND__WEBHOOKS__{forge}__SECRETS"), secrets);
    }
    let token = binary.run("tokens create --role admin").ok();
    let daemon = Daemon::start(&binary, &["serve"]);
    let url = format!("http://{}", daemon.address);
    (daemon, binary, [url, token.trim().to_owned()])
}

#[test]
fn the_description_is_valid() {
    let folder = described();
    let said = run(python("openapi-spec-validator").arg(folder.path().join("openapi.json")));
    assert!(said.contains("OK"), "{said}");
}

#[test]
fn a_generated_python_client_works() {
    let folder = described();
    let package = folder.path().join("rescind_client");
    run(python("openapi-python-client")
        .args(["generate", "--meta", "none", "--path"])
        .arg(folder.path().join("openapi.json"))
        .arg("--output-path")
        .arg(&package));
    let (_daemon, _binary, arguments) = daemon();
    let said = run(python("python")
        .arg(sources().join("client.py"))
        .args(arguments)
        .env("PYTHONPATH", folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1"));
    assert_eq!(said, "done\n");
}

#[test]
#[ignore = "long: ./test.sh --long"]
fn a_generated_typescript_client_works() {
    let folder = described();
    let at = folder.path();
    for file in ["client.ts", "package.json"] {
        std::fs::copy(sources().join(file), at.join(file)).unwrap();
    }
    let modules = tools().join("npm/node_modules");
    std::os::unix::fs::symlink(&modules, at.join("node_modules")).unwrap();
    let tool = |name: &str| {
        let mut command = Command::new(modules.join(".bin").join(name));
        command.current_dir(at);
        command
    };
    run(tool("openapi-typescript").args(["openapi.json", "-o", "rescind.d.ts"]));
    run(tool("tsc").args([
        "--strict",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--lib",
        "es2022,dom",
        "--skipLibCheck",
        "client.ts",
    ]));
    let (_daemon, _binary, arguments) = daemon();
    let said = run(Command::new("node")
        .arg(at.join("client.js"))
        .args(arguments));
    assert_eq!(said, "done\n");
}

/// Requests that fit the description and such that do not, among them every kind of wrong value: each answer is one that
/// is described, and none is a fault of the server.
#[test]
#[ignore = "long: ./test.sh --long"]
fn no_answer_is_undescribed_whatever_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (_daemon, _binary, [url, token]) = daemon();
    let checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "missing_required_header",
        "unsupported_method",
        "allow_header_conformance",
        "ignored_auth",
        "use_after_free",
        "ensure_resource_availability",
    ];
    run(python("schemathesis")
        .current_dir(folder.path())
        .args(["run", "--workers", "1", "--max-examples", "50"])
        .args(["--continue-on-failure", "--request-timeout", "40"])
        .args(["--checks", &checks.join(",")])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("{url}/openapi.json"))
        .env("SCHEMATHESIS_HOOKS", sources().join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1"));
}
