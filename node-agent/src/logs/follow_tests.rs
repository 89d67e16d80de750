//! Logs read from real files that grow and are rotated.

use std::io::Write as _;
use std::time::Duration;

use super::*;

fn line(second: u32, stream: &str, tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000001Z {stream} {tag} {text}\n")
}

fn sample() -> String {
    [
        line(1, "stdout", "F", "one"),
        line(2, "stderr", "F", "two"),
        line(3, "stdout", "P", "thr"),
        line(4, "stdout", "F", "ee"),
        line(5, "stdout", "F", "four"),
    ]
    .concat()
}

async fn read(path: &Path, options: LogOptions) -> String {
    let (sink, mut pieces) = mpsc::channel(4);
    let path = path.to_owned();
    tokio::spawn(async move { stream(&path, &options, None, &sink).await.unwrap() });
    let mut text = Vec::new();
    while let Some(piece) = pieces.recv().await {
        text.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn options_choose_what_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(&path, sample()).unwrap();
    let all = LogOptions::default();
    for (options, text) in [
        (all.clone(), "one\ntwo\nthree\nfour\n"),
        (LogOptions { tail_lines: Some(2), ..all.clone() }, "three\nfour\n"),
        (LogOptions { tail_lines: Some(1), ..all.clone() }, "four\n"),
        (LogOptions { tail_lines: Some(0), ..all.clone() }, ""),
        (LogOptions { tail_lines: Some(99), ..all.clone() }, "one\ntwo\nthree\nfour\n"),
        (LogOptions { limit_bytes: Some(5), ..all.clone() }, "one\nt"),
        (LogOptions { since: Some("2026-01-01T00:00:03Z".parse().unwrap()), ..all.clone() }, "three\nfour\n"),
        (LogOptions { stream: Some("stderr".to_owned()), ..all.clone() }, "two\n"),
        (LogOptions { tail_lines: Some(1), timestamps: true, ..all.clone() }, "2026-01-01T00:00:05.000000001Z four\n"),
    ] {
        assert_eq!(read(&path, options.clone()).await, text, "{options:?}");
    }
}

#[tokio::test]
async fn the_last_lines_are_as_many_as_were_asked_for_though_the_log_grows_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(&path, sample()).unwrap();
    let options = LogOptions { tail_lines: Some(1), ..LogOptions::default() };
    let (sink, mut pieces) = mpsc::channel(4);
    let mut out = Output::new(&options, &sink);
    let mut reader = begin(&path, &options, &mut out).await.unwrap().unwrap();
    let mut log = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(line(6, "stdout", "F", "five").as_bytes()).unwrap();
    assert!(!reader.pump(&mut out).await.unwrap(), "nothing more is wanted");
    assert_eq!(pieces.recv().await.unwrap().unwrap(), "four\n");
    assert!(pieces.try_recv().is_err());
}

#[tokio::test]
async fn rotated_files_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(dir.path().join("0.log.20260101-000000"), line(1, "stdout", "F", "old")).unwrap();
    std::fs::write(&path, line(2, "stdout", "F", "new")).unwrap();
    assert_eq!(read(&path, LogOptions::default()).await, "old\nnew\n");
    assert_eq!(read(&path, LogOptions { tail_lines: Some(2), ..LogOptions::default() }).await, "old\nnew\n");
    assert_eq!(read(&path, LogOptions { tail_lines: Some(1), ..LogOptions::default() }).await, "new\n");
}

#[tokio::test]
async fn following_sees_what_is_written_and_survives_a_rotation_and_ends_with_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(&path, line(1, "stdout", "F", "a")).unwrap();
    let (sink, mut pieces) = mpsc::channel(4);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (follow_path, options) = (path.clone(), LogOptions { follow: true, ..LogOptions::default() });
    let ended: Ended = Box::pin(async { drop(ended.await) });
    let task = tokio::spawn(async move { stream(&follow_path, &options, Some(ended), &sink).await });
    let mut next = async || {
        let piece = tokio::time::timeout(Duration::from_secs(5), pieces.recv()).await.expect("a piece in time");
        piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
    };
    assert_eq!(next().await.as_deref(), Some("a\n"));
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(line(2, "stdout", "F", "b").as_bytes()).unwrap();
    assert_eq!(next().await.as_deref(), Some("b\n"));
    file.write_all(line(3, "stdout", "F", "c").as_bytes()).unwrap();
    std::fs::rename(&path, dir.path().join("0.log.20260101-000000")).unwrap();
    std::fs::write(&path, line(4, "stdout", "F", "d")).unwrap();
    let mut text = String::new();
    while text.len() < 4 {
        text.push_str(&next().await.unwrap());
    }
    assert_eq!(text, "c\nd\n");
    end.send(()).unwrap();
    assert_eq!(next().await, None);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn following_misses_no_file_when_a_log_is_exchanged_twice_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(&path, line(1, "stdout", "F", "a")).unwrap();
    let (sink, mut pieces) = mpsc::channel(4);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (log, options) = (path.clone(), LogOptions { follow: true, ..LogOptions::default() });
    let ended: Ended = Box::pin(async { drop(ended.await) });
    let task = tokio::spawn(async move { stream(&log, &options, Some(ended), &sink).await });
    let mut next = async || {
        let piece = tokio::time::timeout(Duration::from_secs(5), pieces.recv()).await.expect("a piece in time");
        piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
    };
    assert_eq!(next().await.as_deref(), Some("a\n"));
    std::fs::rename(&path, dir.path().join("0.log.20260101-000000.000000001")).unwrap();
    std::fs::write(dir.path().join("0.log.20260101-000000.000000002"), line(2, "stdout", "F", "b")).unwrap();
    std::fs::write(&path, line(3, "stdout", "F", "c")).unwrap();
    let mut text = String::new();
    while text.len() < 4 {
        text.push_str(&next().await.unwrap());
    }
    assert_eq!(text, "b\nc\n");
    end.send(()).unwrap();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_log_of_a_container_that_has_said_nothing_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let all = LogOptions::default();
    for options in [all.clone(), LogOptions { tail_lines: Some(2), ..all }] {
        assert_eq!(read(&path, options).await, "");
    }
    std::fs::write(dir.path().join("0.log.20260101-000000"), line(1, "stdout", "F", "old")).unwrap();
    for lines in [None, Some(1)] {
        let options = LogOptions { tail_lines: lines, ..LogOptions::default() };
        assert_eq!(read(&path, options).await, "old\n", "rotated, and silent since");
    }
}

#[tokio::test]
async fn following_waits_for_the_first_line_and_ends_with_a_container_that_never_says_one() {
    let dir = tempfile::tempdir().unwrap();
    for says in ["first\n", ""] {
        let path = dir.path().join(format!("{}.log", says.len()));
        let (sink, mut pieces) = mpsc::channel(4);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (log, options) = (path.clone(), LogOptions { follow: true, tail_lines: Some(5), ..LogOptions::default() });
        let ended: Ended = Box::pin(async { drop(ended.await) });
        let task = tokio::spawn(async move { stream(&log, &options, Some(ended), &sink).await });
        tokio::task::yield_now().await;
        if !says.is_empty() {
            std::fs::write(&path, line(1, "stdout", "F", says.trim_end())).unwrap();
            let piece = tokio::time::timeout(Duration::from_secs(5), pieces.recv()).await.unwrap();
            assert_eq!(piece.unwrap().unwrap(), says.as_bytes());
        }
        end.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap().unwrap();
        assert!(pieces.recv().await.is_none());
    }
}
