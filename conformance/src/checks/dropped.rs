//! Writes that are dropped and then followed by other calls: what was given up does not land behind the answer to one of those.

use crate::{
    Context, Outcome,
    late::{Write, race},
};

/// A put that is dropped takes effect before the answer to any later call on its key, or never.
pub async fn put_is_never_late(c: Context) -> Outcome {
    race(&c, &[Write::Put]).await
}

/// A streamed put that is dropped takes effect before the answer to any later call on its key, or never.
pub async fn streamed_put_is_never_late(c: Context) -> Outcome {
    race(&c, &[Write::StreamedPut]).await
}

/// A delete that is dropped takes effect before the answer to any later call on its key, or never.
pub async fn delete_is_never_late(c: Context) -> Outcome {
    race(&c, &[Write::Delete]).await
}

/// A copy or rename that is dropped takes effect before the answer to any later call on its target, or on the source that it removes, or
/// never.
pub async fn copy_and_rename_are_never_late(c: Context) -> Outcome {
    race(&c, &[Write::Copy, Write::Rename]).await
}

/// A batch that is dropped changes each key before the answer to any later call on that key, or never.
pub async fn batch_is_never_late(c: Context) -> Outcome {
    race(&c, &[Write::PutBatch, Write::DeleteBatch]).await
}

/// A clear that is dropped removes each key before the answer to any later call on that key, or never.
pub async fn clear_is_never_late(c: Context) -> Outcome {
    race(&c, &[Write::Clear]).await
}
