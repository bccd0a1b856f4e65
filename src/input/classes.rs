//! The image processors of transformers, as data: what each reads and what stands where a checkpoint is silent.

use super::image::Resize;
use super::resize::Filter;

/// One class of transformers, known by its name without `ImageProcessor` (and `Fast`).
#[derive(Debug)]
pub(super) struct Class {
    pub name: &'static str,
    /// Values of `model_type` whose checkpoints have this class when they name none.
    pub families: &'static [&'static str],
    pub recipe: Recipe,
    /// Keys it reads beside [`COMMON`].
    pub reads: &'static [&'static [&'static str]],
    pub filter: Filter,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub size: Resize,
    /// A bare number as `size` is a square, not the shortest edge.
    pub square: bool,
    pub crop_size: Option<(usize, usize)>,
    /// `do_center_crop`
    pub crops: bool,
    /// `crop_pct`
    pub share: f64,
}

/// In which order, and to what size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipe {
    /// Resize, crop, rescale, normalise.
    Plain,
    /// Below 384: the shortest edge to `size / crop_pct`, then a square of `size`. From 384: squashed to the square.
    ConvNext,
    /// To `size / crop_pct`.
    PoolFormer,
    /// The shortest edge to `size * 256 / 224`.
    Levit,
    /// A share `size / crop_size` of the shorter side is cut out of the middle before resizing.
    Perceiver,
    /// Rescaled before resizing, so that nothing is rounded to 8 bits.
    Floats,
}

/// Keys that every class reads.
pub(super) const COMMON: &[&str] =
    &["do_resize", "size", "default_to_square", "resample", "do_rescale", "rescale_factor"];

/// Keys that do not touch the pixels of a picture, here or in transformers.
pub(super) const HARMLESS: &[&str] = &[
    "_valid_processor_keys",
    "auto_map",
    "crop_size",
    "data_format",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "do_reduce_labels",
    "feature_extractor_type",
    "image_processor_type",
    "image_seq_length",
    "input_data_format",
    "pad_size",
    "processor_class",
    "reduce_labels",
    "return_tensors",
];

const CROP: &[&str] = &["do_center_crop", "crop_size"];
const NORMALISE: &[&str] = &["do_normalize", "image_mean", "image_std"];
const PAD: &[&str] = &["do_pad", "pad_size"];

const HALF: [f32; 3] = [0.5; 3];
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
const CLIP: [[f32; 3]; 2] = [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]];

const SQUARE: Option<(usize, usize)> = Some((224, 224));

/// ViT's, and what the others differ from.
const VIT: Class = Class {
    name: "ViT",
    families: &["vit"],
    recipe: Recipe::Plain,
    reads: &[CROP, NORMALISE, PAD],
    filter: Filter::Bilinear,
    mean: HALF,
    std: HALF,
    size: Resize::Exact(224, 224),
    square: true,
    crop_size: None,
    crops: false,
    share: 1.0,
};

const BIT: Class = Class {
    name: "Bit",
    families: &["dinov2", "dinov2_with_registers"],
    filter: Filter::Bicubic,
    mean: CLIP[0],
    std: CLIP[1],
    size: Resize::ShortestEdge(224),
    square: false,
    crop_size: SQUARE,
    crops: true,
    ..VIT
};

const MOBILENET_V1: Class = Class {
    name: "MobileNetV1",
    families: &[],
    size: Resize::ShortestEdge(256),
    square: false,
    crop_size: SQUARE,
    crops: true,
    ..VIT
};

/// Every class whose pictures are made here; the defaults are those of transformers 5.
pub(super) const CLASSES: &[Class] = &[
    VIT,
    Class {
        name: "DeiT",
        families: &["deit"],
        filter: Filter::Bicubic,
        size: Resize::Exact(256, 256),
        crop_size: SQUARE,
        crops: true,
        ..VIT
    },
    Class {
        name: "Beit",
        families: &["beit"],
        reads: &[CROP, NORMALISE],
        filter: Filter::Bicubic,
        crop_size: SQUARE,
        ..VIT
    },
    BIT,
    Class { name: "CLIP", families: &["clip"], reads: &[CROP, NORMALISE, PAD, &["use_square_size"]], ..BIT },
    Class { name: "ChineseCLIP", families: &[], ..BIT },
    Class { name: "Siglip", families: &["siglip"], filter: Filter::Bicubic, square: false, ..VIT },
    Class {
        name: "Blip",
        families: &[],
        filter: Filter::Bicubic,
        mean: CLIP[0],
        std: CLIP[1],
        size: Resize::Exact(384, 384),
        ..VIT
    },
    Class {
        name: "ConvNext",
        families: &["convnext", "convnextv2"],
        recipe: Recipe::ConvNext,
        reads: &[CROP, NORMALISE, &["crop_pct"]],
        filter: Filter::Bicubic,
        size: Resize::ShortestEdge(384),
        square: false,
        share: 224.0 / 256.0,
        ..VIT
    },
    Class {
        name: "PoolFormer",
        families: &["poolformer"],
        recipe: Recipe::PoolFormer,
        reads: &[CROP, NORMALISE, PAD, &["crop_pct"]],
        mean: IMAGENET[0],
        std: IMAGENET[1],
        share: 0.9,
        ..BIT
    },
    Class { name: "Levit", families: &["levit"], recipe: Recipe::Levit, mean: IMAGENET[0], std: IMAGENET[1], ..BIT },
    Class {
        name: "MobileViT",
        families: &["mobilevit", "mobilevitv2"],
        reads: &[CROP, &["do_flip_channel_order"]],
        crop_size: Some((256, 256)),
        ..BIT
    },
    MOBILENET_V1,
    Class { name: "MobileNetV2", reads: &[CROP, NORMALISE], ..MOBILENET_V1 },
    Class {
        name: "EfficientNet",
        families: &["efficientnet"],
        reads: &[CROP, NORMALISE, &["rescale_offset", "include_top"]],
        filter: Filter::Bicubic,
        size: Resize::Exact(346, 346),
        crop_size: Some((289, 289)),
        ..VIT
    },
    Class {
        name: "Perceiver",
        families: &["perceiver"],
        recipe: Recipe::Perceiver,
        reads: &[CROP, NORMALISE],
        filter: Filter::Bicubic,
        mean: IMAGENET[0],
        std: IMAGENET[1],
        crop_size: Some((256, 256)),
        crops: true,
        ..VIT
    },
    Class {
        name: "Pvt",
        families: &["pvt", "pvt_v2"],
        filter: Filter::Bicubic,
        mean: IMAGENET[0],
        std: IMAGENET[1],
        ..VIT
    },
    Class {
        name: "Segformer",
        families: &["segformer"],
        reads: &[NORMALISE],
        mean: IMAGENET[0],
        std: IMAGENET[1],
        size: Resize::Exact(512, 512),
        ..VIT
    },
    Class {
        name: "DINOv3ViT",
        families: &["dinov3_vit"],
        recipe: Recipe::Floats,
        reads: &[CROP, NORMALISE],
        mean: IMAGENET[0],
        std: IMAGENET[1],
        ..VIT
    },
];

impl Class {
    /// The class of this name: `ViTImageProcessor`, `ViTImageProcessorFast` or `ViTFeatureExtractor`.
    pub fn named(name: &str) -> Option<&'static Class> {
        let name = name.strip_suffix("Fast").or(name.strip_suffix("Pil")).unwrap_or(name);
        let name = name.strip_suffix("ImageProcessor").or(name.strip_suffix("FeatureExtractor"))?;
        CLASSES.iter().find(|c| c.name == name)
    }

    /// The class that transformers takes for a checkpoint that names none.
    pub fn of_family(model_type: &str) -> Option<&'static Class> {
        CLASSES.iter().find(|c| c.families.contains(&model_type))
    }

    /// Whether it reads this key.
    pub fn reads(&self, key: &str) -> bool {
        COMMON.contains(&key) || self.reads.iter().any(|group| group.contains(&key))
    }
}
