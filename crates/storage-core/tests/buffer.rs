//! Values in memory that are in several pieces, and bodies that can be sent again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use storage_core::{Body, Buffer, Bytes, ErrorKind};

fn pieces(sizes: &[usize]) -> Vec<Bytes> {
    let mut next = 0_u8;
    let mut piece = |size: &usize| {
        next = next.wrapping_add(1);
        Bytes::from(vec![next; *size])
    };
    sizes.iter().map(&mut piece).collect()
}

fn streamed(pieces: &[Bytes]) -> Body {
    let pieces: Vec<_> = pieces.iter().cloned().map(Ok).collect();
    Body::stream(stream::iter(pieces))
}

#[test]
fn a_buffer_of_many_pieces_is_cut_without_a_copy() {
    let pieces = pieces(&[3, 0, 5, 1]);
    let buffer: Buffer = pieces.iter().cloned().collect();
    assert_eq!((buffer.len(), buffer.pieces().len()), (9, 3));
    let whole = buffer.clone().into_bytes().unwrap();
    for start in 0..=9_u64 {
        for end in start..=9 {
            let cut = buffer.slice(start..end);
            assert_eq!(cut.clone().into_bytes().unwrap(), whole.slice(start as usize..end as usize));
            let inside = |piece: &Bytes| pieces.iter().any(|from| from.as_ptr_range().contains(&piece.as_ptr()));
            assert!(cut.pieces().iter().all(inside), "{start}..{end} is copied");
        }
    }
    assert_eq!(buffer, Buffer::from(whole));
    assert!(Buffer::default().is_empty() && Buffer::default().pieces().is_empty());
}

#[tokio::test]
async fn large_pieces_are_kept_and_small_ones_copied_together() {
    let large = pieces(&[64 << 10, 1 << 20]);
    let kept = streamed(&large).collect(u64::MAX).await.unwrap();
    assert!(kept.pieces().iter().zip(&large).all(|(kept, came)| kept.as_ptr() == came.as_ptr()));
    let small = pieces(&[1000; 1000]);
    let copied = streamed(&small).collect(u64::MAX).await.unwrap();
    assert_eq!(copied.len(), 1_000_000);
    assert!(copied.pieces().iter().all(|piece| piece.len() <= 64 << 10) && copied.pieces().len() <= 17);
    let mixed = pieces(&[10, 100_000, 10, 20, 70_000, 65_535, 1, 1]);
    let whole = streamed(&mixed).bytes(u64::MAX).await.unwrap();
    assert_eq!(streamed(&mixed).collect(u64::MAX).await.unwrap().into_bytes().unwrap(), whole);
    let error = streamed(&mixed).collect(100_009).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_replayable_body_begins_again() {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let body = Body::replayable(6, move || {
        count.fetch_add(1, Ordering::Relaxed);
        stream::iter(["abc", "def"].map(|piece| Ok(Bytes::from_static(piece.as_bytes()))))
    });
    assert!(!body.is_in_memory() && body.len() == Some(6));
    for _ in 0..3 {
        let again = body.try_clone().unwrap().map_replayable(|pieces| pieces.map(|piece| piece));
        assert_eq!(again.try_clone().unwrap().bytes(6).await.unwrap(), "abcdef");
    }
    assert_eq!(begun.load(Ordering::Relaxed), 3);
    let short = Body::replayable(7, || stream::iter([Ok(Bytes::from_static(b"abcdef"))]));
    assert_eq!(short.bytes(u64::MAX).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(Body::stream(stream::empty()).try_clone().is_none());
    assert!(Body::from("abc").try_clone().is_some());
}

#[test]
fn values_of_everyday_types_are_bodies() {
    let text = String::from("abc");
    for body in
        [Body::from(b"abc"), Body::from("abc"), text.as_str().into(), text.clone().into(), vec![97, 98, 99].into()]
    {
        assert_eq!(body.buffer().unwrap().clone().into_bytes().unwrap(), "abc");
    }
}
