//! Checkpoints as people have them: names, files and folders that load, or are called what they are.
