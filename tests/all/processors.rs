//! Pictures, arrays and image processors on which people stumble, with transformers' and Pillow's answers.
