//! Tokenizer files, byte-level text and pairs, with transformers' tokens.
