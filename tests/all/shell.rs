//! The command line's word: names, resuming, pipes, panics and exit codes.
