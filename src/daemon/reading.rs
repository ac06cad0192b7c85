//! Reading of the configuration by a daemon that goes on meanwhile, however long that takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::parts::Loaded;

/// Reads the configuration and the key formats again, beside those in force. Returns what is wrong with them, with file
/// and line.
pub type Load = Arc<dyn Fn(&Loaded) -> Result<Loaded, String> + Send + Sync>;

/// Maximum time for reading: files may be on a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Maximum number of readings that have not ended, each of which holds a thread.
const HUNG_MAX: usize = 4;

/// Readings of the configuration, one at a time but for those that hang.
#[derive(Debug)]
pub(super) struct Readings {
    hung: Vec<JoinHandle<Result<Loaded, String>>>,
    patience: Duration,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            hung: Vec::new(),
            patience: PATIENCE,
        }
    }
}

impl Readings {
    /// Reads the configuration again on a thread of its own. What a reading that took too long returns in the end is
    /// dropped.
    ///
    /// # Errors
    /// Returns what is wrong with the configuration, or that it cannot be read in time.
    pub(super) async fn read(&mut self, load: &Load, in_force: &Loaded) -> Result<Loaded, String> {
        self.hung.retain(|reading| !reading.is_finished());
        let hung = self.hung.len();
        if hung >= HUNG_MAX {
            return Err(format!(
                "{hung} earlier attempts to read it have not ended yet: look for a disk that does not answer, below the \
                 configuration, the pattern files or the files of secrets"
            ));
        }
        let (load, in_force) = (Arc::clone(load), in_force.clone());
        let mut reading = tokio::task::spawn_blocking(move || load(&in_force));
        match tokio::time::timeout(self.patience, &mut reading).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_)) => Err("reading it panicked".to_owned()),
            Err(_) => {
                self.hung.push(reading);
                Err(format!(
                    "it could not be read within {} s: look for a disk that does not answer, below the configuration, the \
                     pattern files or the files of secrets, and send SIGHUP again",
                    self.patience.as_secs()
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::config::Config;

    fn loaded() -> Loaded {
        let environment = [].into_iter().collect();
        let config = Config::parse(Path::new("c.toml"), "", &environment).unwrap();
        let formats = config.load_formats().unwrap();
        let minting = config.issuer_formats(&formats).unwrap();
        Loaded {
            config,
            formats,
            minting,
        }
    }

    /// Reads as soon as it is told to.
    fn when_told(told: Receiver<()>) -> Load {
        let told = Mutex::new(told);
        Arc::new(move |in_force| {
            // An error is the end of the test.
            let _ = told.lock().unwrap().recv();
            Ok(in_force.clone())
        })
    }

    #[tokio::test]
    async fn a_reading_that_hangs_is_given_up_and_keeps_no_later_one_from_it() {
        let (tell, told) = channel();
        let (hangs, works): (Load, Load) =
            (when_told(told), Arc::new(|in_force| Ok(in_force.clone())));
        let in_force = loaded();
        let mut readings = Readings {
            patience: Duration::ZERO,
            ..Readings::default()
        };
        for hung in 1..=HUNG_MAX {
            let said = readings.read(&hangs, &in_force).await.unwrap_err();
            assert!(said.contains("could not be read within"), "{said}");
            assert_eq!(readings.hung.len(), hung);
            if hung < HUNG_MAX {
                readings.patience = PATIENCE;
                assert!(readings.read(&works, &in_force).await.is_ok());
                readings.patience = Duration::ZERO;
            }
        }
        readings.patience = PATIENCE;
        let said = readings.read(&works, &in_force).await.unwrap_err();
        assert!(said.contains("have not ended yet"), "{said}");
        // As soon as one of them ends, there is a thread for the next.
        tell.send(()).unwrap();
        crate::eventually::eventually("it ended", async || {
            readings.hung.iter().any(JoinHandle::is_finished)
        })
        .await;
        assert!(readings.read(&works, &in_force).await.is_ok());
    }
}
