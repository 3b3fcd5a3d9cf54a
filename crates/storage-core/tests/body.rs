//! Bodies: lengths, limits, errors, and that nothing is copied without need.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use storage_core::{Body, Bytes, Error, ErrorKind, Result};

/// Pieces, and how many of them were asked for.
fn counted(
    pieces: &'static [&'static str],
) -> (impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static, Arc<AtomicUsize>) {
    let polled = Arc::new(AtomicUsize::new(0));
    let count = polled.clone();
    let pieces = stream::iter(pieces.iter().map(move |piece| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_static(piece.as_bytes()))
    }));
    (pieces, polled)
}

fn pieces(pieces: &'static [&'static str]) -> impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static {
    counted(pieces).0
}

#[tokio::test]
async fn whole_bodies_are_not_copied() {
    let bytes = Bytes::from(vec![1, 2, 3]);
    let (vec, text) = (vec![1, 2, 3], String::from("text"));
    let (at_bytes, at_vec, at_text) = (bytes.as_ptr(), vec.as_ptr(), text.as_ptr());
    assert_eq!(Body::from(bytes).bytes(9).await.unwrap().as_ptr(), at_bytes);
    assert_eq!(Body::from(vec).bytes(9).await.unwrap().as_ptr(), at_vec);
    assert_eq!(Body::from(text).bytes(9).await.unwrap().as_ptr(), at_text);
    const STATIC: &[u8] = b"static";
    let body = Body::from(Bytes::from_static(STATIC)).bytes(9).await.unwrap();
    assert_eq!(body.as_ptr(), STATIC.as_ptr());
}

#[tokio::test]
async fn what_is_borrowed_is_copied() {
    let bodies = {
        let text = String::from("text");
        let array: &[u8; 4] = text.as_bytes().try_into().unwrap();
        [Body::from(text.as_str()), text.as_bytes().into(), array.into()]
    };
    for body in bodies {
        assert_eq!(body.bytes(9).await.unwrap(), "text");
    }
}

#[tokio::test]
async fn a_stream_of_one_piece_is_not_copied() {
    let piece = Bytes::from(vec![1, 2, 3]);
    let one = || stream::iter([Ok(piece.clone())]);
    for body in [Body::stream(one()), Body::with_len(3, one())] {
        assert_eq!(body.bytes(3).await.unwrap().as_ptr(), piece.as_ptr());
    }
    let mut stream = Body::from(piece.clone()).into_stream();
    let only = stream.next().await.unwrap().unwrap();
    assert_eq!(only.as_ptr(), piece.as_ptr());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn pieces_are_joined_in_order() {
    let all = &["", "ab", "", "c", "def"];
    for body in [Body::stream(pieces(all)), Body::with_len(6, pieces(all))] {
        assert_eq!(body.bytes(6).await.unwrap(), "abcdef");
    }
    for body in [Body::stream(pieces(&[])), Body::with_len(0, pieces(&["", ""]))] {
        assert!(body.bytes(0).await.unwrap().is_empty());
    }
}

#[test]
fn the_length_is_known_where_declared() {
    assert_eq!(Body::from("abc").len(), Some(3));
    assert_eq!(Body::with_len(7, pieces(&[])).len(), Some(7));
    assert_eq!(Body::stream(pieces(&[])).len(), None);
    assert!(Body::from("").is_empty() && Body::with_len(0, pieces(&[])).is_empty());
    assert!(!Body::stream(pieces(&[])).is_empty());
}

#[tokio::test]
async fn another_length_than_declared_is_an_error() {
    let wrong: [(u64, &'static [&'static str]); 6] =
        [(4, &["abc"]), (1, &[]), (2, &["abc"]), (3, &["abc", "d"]), (0, &["a"]), (4, &["abc", "de"])];
    for (declared, parts) in wrong {
        let body = Body::with_len(declared, pieces(parts));
        let error = body.bytes(100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{declared} {parts:?}");

        let stream = Body::with_len(declared, pieces(parts)).into_stream();
        let items: Vec<_> = stream.collect().await;
        let (last, before) = items.split_last().unwrap();
        assert!(last.is_err() && before.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn a_stream_ends_behind_its_error() {
    let failing = || {
        let error = Error::new(ErrorKind::Unavailable, "gone");
        stream::iter([Ok(Bytes::from("ab")), Err(error), Ok(Bytes::from("cd"))])
    };
    for body in [Body::stream(failing()), Body::with_len(4, failing())] {
        let items: Vec<_> = body.into_stream().collect().await;
        assert_eq!(items.len(), 2);
        assert_eq!(items[1].as_ref().unwrap_err().message(), "gone");
    }
    let error = Body::stream(failing()).bytes(100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_limit_is_met_as_early_as_possible() {
    let too_large = |error: Error| assert_eq!(error.kind(), ErrorKind::TooLarge);
    too_large(Body::from("abcd").bytes(3).await.unwrap_err());

    let (parts, polled) = counted(&["abcd"]);
    too_large(Body::with_len(4, parts).bytes(3).await.unwrap_err());
    assert_eq!(polled.load(Ordering::Relaxed), 0);

    for (parts, needed) in
        [(&["abcd", "e"] as &'static [&'static str], 1), (&["ab", "cd", "e"], 2), (&["a", "b", "cd", "e"], 3)]
    {
        let (parts, polled) = counted(parts);
        too_large(Body::stream(parts).bytes(3).await.unwrap_err());
        assert_eq!(polled.load(Ordering::Relaxed), needed);
    }
}

#[test]
fn debug_shows_no_bytes_of_a_stream() {
    let shown = format!("{:?}", Body::with_len(3, pieces(&["abc"])));
    assert!(shown.contains("declared: Some(3)") && !shown.contains("abc"));
}
