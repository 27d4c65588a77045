use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::getegid;

use super::*;

fn options(dir: &Path) -> Options {
    Options {
        path: dir.join("run/token.sock"),
        mode: 0o660,
        group: Some(getegid().as_raw()),
    }
}

/// Whatever the umask is.
fn make_narrow(dir: &Path) {
    DirBuilder::new().mode(DIRECTORY_MODE).create(dir).unwrap();
    fs::set_permissions(dir, Permissions::from_mode(DIRECTORY_MODE)).unwrap();
}

#[tokio::test]
async fn a_socket_has_its_mode_and_its_directory_is_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let _listener = Listener::bind(&options).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&options.path), 0o660);
    assert_eq!(mode(options.path.parent().unwrap()), DIRECTORY_MODE);
}

#[tokio::test]
async fn i32_a_live_socket_is_left_alone_and_a_dead_one_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let first = Listener::bind(&options).unwrap();
    assert!(matches!(
        Listener::bind(&options),
        Err(ListenError::Served(_))
    ));
    // A child that another test starts at this moment may hold a copy until its `exec`: dropping is no end.
    shutdown(first.socket.as_raw_fd(), Shutdown::Both).unwrap();
    drop(first);
    assert!(options.path.exists(), "left behind as by a crash");
    let second = Listener::bind(&options).unwrap();
    assert!(second.retire());
    assert!(!options.path.exists());
}

#[tokio::test]
async fn a_socket_of_another_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    make_narrow(options.path.parent().unwrap());
    let _other = std::os::unix::net::UnixListener::bind(&options.path).unwrap();
    assert!(matches!(
        Listener::bind(&options),
        Err(ListenError::Served(_))
    ));
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    make_narrow(options.path.parent().unwrap());
    fs::write(&options.path, "precious").unwrap();
    assert!(matches!(
        Listener::bind(&options),
        Err(ListenError::Occupied(_))
    ));
    assert_eq!(fs::read(&options.path).unwrap(), b"precious");
}

#[tokio::test]
async fn t3_a_directory_that_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let parent = options.path.parent().unwrap();
    fs::create_dir(parent).unwrap();
    fs::set_permissions(parent, Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        Listener::bind(&options),
        Err(ListenError::Directory(_))
    ));
}

#[tokio::test]
async fn a_path_that_was_given_to_another_is_not_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let listener = Listener::bind(&options).unwrap();
    fs::remove_file(&options.path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&options.path).unwrap();
    listener.retire();
    assert!(options.path.exists());
}
