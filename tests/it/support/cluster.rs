//! PostgreSQL cluster of a single test, which may stop it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Running cluster. Stopped when dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).expect("permissions");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let cluster = Self {
            folder,
            programs: programs(),
            port,
        };
        let data = cluster.data();
        let made = cluster.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"],
        );
        assert!(made, "initdb");
        let log = cluster.folder.path().join("log").display().to_string();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        );
        let started = cluster.run(
            "pg_ctl",
            &[
                "-D", &data, "-w", "-t", "60", "-l", &log, "-o", &options, "start",
            ],
        );
        assert!(started, "pg_ctl start");
        cluster
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops the cluster as a crash would, and starts it again.
    pub(crate) fn restart(&self) {
        let data = self.data();
        let restarted = self.run(
            "pg_ctl",
            &["-D", &data, "-m", "immediate", "-w", "-t", "60", "restart"],
        );
        assert!(restarted, "pg_ctl restart");
    }

    /// Returns the folder of its data.
    pub(crate) fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// Runs a program of PostgreSQL and returns whether it succeeded. These programs refuse to run as root, so root
    /// switches to the user of Debian's package, as `test.sh` does.
    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let program = self.programs.join(program);
        let is_root = rustix::process::getuid().is_root();
        let mut command = if is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        // The server would hold a pipe open for as long as it runs.
        let output = std::fs::File::create(self.folder.path().join("output")).expect("a file");
        let errors = output.try_clone().expect("a file");
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdout(output)
            .stderr(errors)
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }
}

/// Returns the folder of the newest PostgreSQL installed from Debian's packages.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: ./test.sh installs it");
    let versions = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter(|path| has_server(path)).max_by_key(number);
    newest
        .expect("PostgreSQL: ./test.sh installs it")
        .join("bin")
}

fn has_server(version: &Path) -> bool {
    version.join("bin/initdb").exists()
}
