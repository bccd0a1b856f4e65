//! Writes a ViT checkpoint with random weights in HuggingFace layout, for measuring time and memory at real size:
//!
//! `cargo run --release --example random_vit -- DIR [base|large|tiny]`

use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: random_vit DIR [base|large|tiny]")?;
    let (width, layers, heads) = match args.next().as_deref() {
        None | Some("base") => (768, 12, 12),
        Some("large") => (1024, 24, 16),
        Some("tiny") => (192, 12, 3),
        Some(other) => return Err(format!("unknown size `{other}`; base, large or tiny").into()),
    };
    std::fs::create_dir_all(&dir)?;
    write(Path::new(&dir), width, layers, heads)
}

fn write(dir: &Path, width: usize, layers: usize, heads: usize) -> Result<(), Failure> {
    let (ffn, patch, image, classes) = (4 * width, 16, 224, 1000);
    let config = serde_json::json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "image_size": image, "patch_size": patch, "num_channels": 3, "qkv_bias": true,
        "id2label": (0..classes).map(|i| (i.to_string(), format!("class {i}"))).collect::<HashMap<_, _>>(),
    });
    std::fs::write(dir.join("config.json"), config.to_string())?;
    let processor = serde_json::json!({
        "image_processor_type": "ViTImageProcessor", "size": {"height": image, "width": image}, "resample": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    });
    std::fs::write(dir.join("preprocessor_config.json"), processor.to_string())?;

    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut random = |name: String, shape: &[usize], deviation: f32| -> Result<(), Failure> {
        tensors.insert(name, Tensor::randn(0f32, deviation, shape, &Device::Cpu)?);
        Ok(())
    };
    let tokens = 1 + (image / patch) * (image / patch);
    random("vit.embeddings.cls_token".into(), &[1, 1, width], 0.5)?;
    random("vit.embeddings.position_embeddings".into(), &[1, tokens, width], 0.5)?;
    random("vit.embeddings.patch_embeddings.projection.weight".into(), &[width, 3, patch, patch], 0.05)?;
    random("vit.embeddings.patch_embeddings.projection.bias".into(), &[width], 0.05)?;
    for l in 0..layers {
        let at = |name: &str| format!("vit.encoder.layer.{l}.{name}");
        let linear = ["attention.attention.query", "attention.attention.key", "attention.attention.value"];
        let square = linear.iter().chain(&["attention.output.dense"]).map(|n| (*n, width, width));
        for (name, out, input) in square.chain([("intermediate.dense", ffn, width), ("output.dense", width, ffn)]) {
            random(at(&format!("{name}.weight")), &[out, input], 0.04)?;
            random(at(&format!("{name}.bias")), &[out], 0.04)?;
        }
        for norm in ["layernorm_before", "layernorm_after"] {
            random(at(&format!("{norm}.weight")), &[width], 1.0)?;
            random(at(&format!("{norm}.bias")), &[width], 0.1)?;
        }
    }
    random("vit.layernorm.weight".into(), &[width], 1.0)?;
    random("vit.layernorm.bias".into(), &[width], 0.1)?;
    random("classifier.weight".into(), &[classes, width], 0.05)?;
    random("classifier.bias".into(), &[classes], 0.05)?;
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors"))?;
    Ok(())
}
