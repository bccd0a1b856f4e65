//! The two small models inside the binary (feature `demo`).

/// A model in HuggingFace layout whose files are part of the program.
#[derive(Debug)]
pub struct Builtin {
    /// Its id on the command line.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// File name and contents.
    pub files: &'static [(&'static str, &'static [u8])],
    /// `model-u8.safetensors`
    pub weights: &'static [u8],
}

/// All of them. A static: a constant's weights would stand in the binary once for every use.
#[cfg(feature = "demo")]
pub static BUILTINS: &[Builtin] = &[
    Builtin {
        name: "demo-vit",
        about: "14 coarse classes of pictures, 8 M parameters; a small model trained on little data, for trying vitx",
        files: &[
            ("config.json", include_bytes!("../../models/demo-vit/config.json")),
            ("preprocessor_config.json", include_bytes!("../../models/demo-vit/preprocessor_config.json")),
        ],
        weights: include_bytes!("../../models/demo-vit/model-u8.safetensors"),
    },
    Builtin {
        name: "demo-bert",
        about: "is an English sentence positive or negative, 8 M parameters; a small model, for trying vitx",
        files: &[
            ("config.json", include_bytes!("../../models/demo-bert/config.json")),
            ("tokenizer.json", include_bytes!("../../models/demo-bert/tokenizer.json")),
            ("tokenizer_config.json", include_bytes!("../../models/demo-bert/tokenizer_config.json")),
        ],
        weights: include_bytes!("../../models/demo-bert/model-u8.safetensors"),
    },
];

/// None without the feature `demo`.
#[cfg(not(feature = "demo"))]
pub static BUILTINS: &[Builtin] = &[];

/// The one that stands in where no model is named, for texts or pictures; and models for real work.
pub fn usual(text: bool) -> (&'static str, &'static str) {
    match text {
        true => (
            "demo-bert",
            "distilbert-base-uncased-finetuned-sst-2-english or cardiffnlp/twitter-roberta-base-sentiment-latest",
        ),
        false => ("demo-vit", "google/vit-base-patch16-224 or facebook/dinov2-base-imagenet1k-1-layer"),
    }
}
