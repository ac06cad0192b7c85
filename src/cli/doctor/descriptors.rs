//! Check of the file descriptors that the daemon may open.

use super::Check;
use crate::daemon::Descriptors;

/// Checks that there are enough file descriptors for the maximum number of connections.
pub(super) fn examine() -> Check {
    const NAME: &str = "descriptors";
    let descriptors = Descriptors::available();
    if let Some((what, mend)) = descriptors.far_too_few() {
        return Check::failed(NAME, what, mend);
    }
    match descriptors.too_few() {
        Some((what, mend)) => Check::warning(NAME, what, mend),
        None => Check::ok(
            NAME,
            format!("enough for {} connections", descriptors.connections),
        ),
    }
}
