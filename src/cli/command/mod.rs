//! A file a command, or a few of one kind.

pub mod compare;
pub mod evaluate;
pub mod explain;
pub mod heads;
pub mod inspect;
pub mod lists;
pub mod maximize;
pub mod predict;
pub mod shell;
pub mod summary;
pub mod tune;
pub mod worker;
