//! The tokenizer classes of transformers that vitx honours, and what each makes of its files.

use super::{object, ReadFile};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// How a class comes by its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// WordPiece over BERT's splitting, made from the vocabulary and `tokenizer_config.json` alone.
    WordPiece,
    /// Byte-level BPE, made from vocabulary, merges and `tokenizer_config.json` alone.
    ByteLevel,
    /// SentencePiece's unigrams: `tokenizer.json` as it stands, where it is what the class would build.
    Pieces,
    /// `tokenizer.json` as it stands.
    AsItStands,
}

/// Whether the second text of a pair has a token type of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// As the template says.
    Fed,
    /// No token types are given to the model, which then takes 0 for all.
    None,
    /// Nothing says so: transformers 4 feeds the template's, transformers 5 none.
    Unsaid,
}

/// A tokenizer class.
#[derive(Debug)]
pub struct Class {
    /// Names with the same behaviour, without `Fast`.
    pub names: &'static [&'static str],
    /// How it is built.
    pub build: Build,
    /// Token types, unless `model_input_names` says otherwise.
    pub types: Types,
    /// Special tokens that it has unless the files say otherwise.
    pub specials: &'static [(&'static str, &'static str)],
}

/// Every class that is honoured.
pub const CLASSES: &[Class] = &[
    Class {
        names: &["BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer"],
        build: Build::WordPiece,
        types: Types::Fed,
        specials: BERT,
    },
    Class { names: &["DistilBertTokenizer"], build: Build::WordPiece, types: Types::None, specials: BERT },
    Class {
        names: &["RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"],
        build: Build::ByteLevel,
        types: Types::None,
        specials: ROBERTA,
    },
    Class { names: &["XLMRobertaTokenizer"], build: Build::Pieces, types: Types::None, specials: ROBERTA },
    Class { names: &["CamembertTokenizer"], build: Build::AsItStands, types: Types::None, specials: ROBERTA },
    Class { names: &["MPNetTokenizer"], build: Build::AsItStands, types: Types::None, specials: MPNET },
    Class {
        names: &["DebertaV2Tokenizer", "DebertaTokenizer"],
        build: Build::AsItStands,
        types: Types::Fed,
        specials: DEBERTA,
    },
    Class { names: &["AlbertTokenizer"], build: Build::AsItStands, types: Types::Fed, specials: ALBERT },
    Class {
        names: &["SiglipTokenizer", "GemmaTokenizer", "T5Tokenizer"],
        build: Build::AsItStands,
        types: Types::None,
        specials: &[],
    },
    Class { names: &["CLIPTokenizer"], build: Build::AsItStands, types: Types::None, specials: CLIP },
    Class {
        names: &["PreTrainedTokenizer", "TokenizersBackend"],
        build: Build::AsItStands,
        types: Types::Unsaid,
        specials: &[],
    },
];

const BERT: &[(&str, &str)] = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

const ROBERTA: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "<unk>"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

const MPNET: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("unk_token", "[UNK]"),
    ("sep_token", "</s>"),
    ("pad_token", "<pad>"),
    ("cls_token", "<s>"),
    ("mask_token", "<mask>"),
];

const DEBERTA: &[(&str, &str)] = &[
    ("bos_token", "[CLS]"),
    ("eos_token", "[SEP]"),
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

const ALBERT: &[(&str, &str)] = &[
    ("bos_token", "[CLS]"),
    ("eos_token", "[SEP]"),
    ("unk_token", "<unk>"),
    ("sep_token", "[SEP]"),
    ("pad_token", "<pad>"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

const CLIP: &[(&str, &str)] = &[
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];

/// The class of a family whose files name none; BERT's of all others.
const USUAL: &[(&str, &str)] = &[
    ("roberta", "RobertaTokenizer"),
    ("roberta-prelayernorm", "RobertaTokenizer"),
    ("data2vec-text", "RobertaTokenizer"),
    ("xlm-roberta", "XLMRobertaTokenizer"),
    ("camembert", "CamembertTokenizer"),
    ("albert", "AlbertTokenizer"),
    ("mpnet", "MPNetTokenizer"),
    ("deberta-v2", "DebertaV2Tokenizer"),
    ("deberta", "DebertaTokenizer"),
    ("clip", "CLIPTokenizer"),
    ("siglip", "SiglipTokenizer"),
];

impl Class {
    /// The class that `tokenizer_config.json`, then `config.json`, then the family names.
    ///
    /// # Errors
    /// [`Error::Model`] for a class that is not honoured.
    pub fn of(file: ReadFile<'_>, settings: &Map<String, Value>, family: &str) -> Result<&'static Class> {
        let config = object(file, "config.json")?;
        let named = [("tokenizer_config.json", settings), ("config.json", &config)]
            .into_iter()
            .find_map(|(place, map)| map.get("tokenizer_class").filter(|v| !v.is_null()).map(|v| (place, v)));
        let Some((place, value)) = named else {
            let usual = USUAL.iter().find(|(of, _)| *of == family).map_or("BertTokenizer", |(_, class)| class);
            return Class::find(usual).ok_or_else(|| Error::Model(format!("no tokenizer class {usual}")));
        };
        let refused = || {
            let known: Vec<_> = CLASSES.iter().map(|c| c.names[0]).collect();
            Error::Model(format!(
                "{place}: tokenizer_class {value} is not one that vitx honours ({}, each also with Fast behind it); its tokens would be guessed",
                known.join(", ")
            ))
        };
        value.as_str().and_then(Class::find).ok_or_else(refused)
    }

    fn find(name: &str) -> Option<&'static Class> {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        CLASSES.iter().find(|c| c.names.contains(&name))
    }

    /// The special token it has of this kind by default.
    pub fn default_special(&self, key: &str) -> Option<&'static str> {
        self.specials.iter().find(|(k, _)| *k == key).map(|(_, token)| *token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokenizer_s_own_file_comes_before_the_model_s_and_the_family() {
        let of = |settings: &str, config: &str, family: &str| {
            let settings = serde_json::from_str(settings).unwrap();
            let file = |name: &str| Ok((name == "config.json").then(|| config.as_bytes().to_vec()));
            Class::of(&file, &settings, family).map(|c| c.names[0])
        };
        let same = r#"{"tokenizer_class": "RobertaTokenizerFast"}"#;
        assert_eq!(of("{}", "{}", "roberta").unwrap(), "RobertaTokenizer");
        assert_eq!(of("{}", "{}", "distilbert").unwrap(), "BertTokenizer"); // as transformers has it
        assert_eq!(of("{}", same, "bert").unwrap(), "RobertaTokenizer");
        assert_eq!(of(r#"{"tokenizer_class": "ElectraTokenizer"}"#, same, "bert").unwrap(), "BertTokenizer");
        assert_eq!(
            of(r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#, "{}", "bert").unwrap(),
            "PreTrainedTokenizer"
        );
        for class in [r#""BertweetTokenizer""#, r#""MyTokenizer""#, "7"] {
            let error = of(&format!(r#"{{"tokenizer_class": {class}}}"#), "{}", "roberta").unwrap_err().to_string();
            assert!(error.contains(class) && error.contains("tokenizer_config.json: tokenizer_class"), "{error}");
        }
    }
}
