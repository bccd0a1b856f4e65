//! Evaluation on the masks, lists and folders that people have.
