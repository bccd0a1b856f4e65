//! A drawn figure as PDF or PNG, with every letter in it.

use super::{Figure, Kind, Print, POINTS};
use crate::error::{Error, Result};
use crate::render::lettering::{builtin, FONT};
use ab_glyph::FontRef;
use krilla::geom::Size;
use krilla::metadata::Metadata;
use krilla::page::PageSettings;
use krilla_svg::{SurfaceExt, SvgSettings};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::{Database, FaceInfo, Stretch, Style, Weight, ID};
use resvg::usvg::{Options, Tree};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Pixels of a PNG, at most: a page of text at 300 an inch has 8 million.
const MOST: f32 = 100e6;

/// # Errors
/// [`Error::Usage`] for a font that cannot be read and for a figure that is too large.
pub(super) fn export(figure: &Figure, size: (f32, f32), print: &Print, kind: Kind) -> Result<Vec<u8>> {
    let options = Options { fontdb: fonts(&figure.foreign, print.font.as_deref())?, ..Options::default() };
    let drawn = figure.svg(size, print, false);
    let tree = Tree::from_str(&drawn, &options).map_err(|e| Error::Fault(format!("a figure: {e}")))?;
    match kind {
        Kind::Pdf => pdf(&tree, figure, print),
        Kind::Svg | Kind::Png => pixels(&tree, print),
    }
}

fn pdf(tree: &Tree, figure: &Figure, print: &Print) -> Result<Vec<u8>> {
    let failed = |what: &str| Error::Fault(format!("a figure as PDF: {what}"));
    let scale = POINTS / print.dpi.max(1) as f32;
    let (width, height) = (tree.size().width() * scale, tree.size().height() * scale);
    let size = Size::from_wh(width, height).ok_or_else(|| failed("it has no size"))?;
    let settings = PageSettings::from_wh(width, height).ok_or_else(|| failed("it has no size"))?;
    let mut document = krilla::Document::new();
    document.set_metadata(Metadata::new().title(figure.title.clone()).creator("vitx".into()));
    let mut page = document.start_page_with(settings);
    let mut surface = page.surface();
    let drawn = surface.draw_svg(tree, size, SvgSettings::default());
    surface.finish();
    page.finish();
    drawn.ok_or_else(|| failed("it cannot be drawn"))?;
    document.finish().map_err(|e| failed(&format!("{e:?}")))
}

fn pixels(tree: &Tree, print: &Print) -> Result<Vec<u8>> {
    let size = tree.size().to_int_size();
    let (width, height) = (size.width(), size.height());
    let large = || {
        Error::Usage(format!(
            "a figure of {width}x{height} pixels is too large; pass a smaller --width or --cell, or write --format pdf"
        ))
    };
    if width as f32 * height as f32 > MOST {
        return Err(large());
    }
    let mut canvas = Pixmap::new(width, height).ok_or_else(large)?;
    resvg::render(tree, Transform::default(), &mut canvas.as_mut());
    let failed = |e: png::EncodingError| Error::Input(format!("cannot be encoded as PNG: {e}"));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_depth(png::BitDepth::Eight);
    let metre = (print.dpi as f32 / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: metre, yppu: metre, unit: png::Unit::Meter }));
    let data: Vec<u8> = if print.clear {
        encoder.set_color(png::ColorType::Rgba);
        canvas.pixels().iter().map(|p| p.demultiply()).flat_map(|p| [p.red(), p.green(), p.blue(), p.alpha()]).collect()
    } else {
        encoder.set_color(png::ColorType::Rgb); // on a ground, everything is opaque
        canvas.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect()
    };
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// The built-in font, and where it lacks letters of the figure the user's and the system's, which are read once: what is drawn from the
/// first alone is the same on every machine.
fn fonts(foreign: &BTreeSet<char>, own: Option<&Path>) -> Result<Arc<Database>> {
    static BUILT_IN: OnceLock<Arc<Database>> = OnceLock::new();
    static ALL: OnceLock<Arc<Database>> = OnceLock::new();
    let first = || {
        let mut fonts = Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts
    };
    if foreign.is_empty() {
        return Ok(BUILT_IN.get_or_init(|| Arc::new(first())).clone());
    }
    let all = match ALL.get() {
        Some(all) => all,
        None => {
            let mut fonts = first();
            if let Some(file) = own {
                let failed = |e| Error::Usage(format!("--font {}: {e}", file.display()));
                fonts.load_font_file(file).map_err(failed)?;
            }
            let before: Vec<ID> = fonts.faces().map(|face| face.id).collect();
            fonts.load_system_fonts();
            // The first that has a letter draws it: of the system's families only the plain faces are left.
            let plain = |face: &FaceInfo| {
                (face.weight, face.style, face.stretch) == (Weight::NORMAL, Style::Normal, Stretch::Normal)
            };
            let other = |face: &&FaceInfo| !plain(face) && !before.contains(&face.id);
            let others: Vec<ID> = fonts.faces().filter(other).map(|face| face.id).collect();
            others.into_iter().for_each(|face| fonts.remove_face(face));
            ALL.get_or_init(|| Arc::new(fonts))
        }
    };
    Ok(all.clone())
}

/// Those of some letters that no font has.
pub(super) fn lacking(letters: &BTreeSet<char>, own: Option<&Path>) -> Result<Vec<char>> {
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    let all = fonts(letters, own)?;
    let has = |c: char| {
        let glyph =
            |data: &[u8], index| FontRef::try_from_slice_and_index(data, index).ok().and_then(|font| builtin(&font, c));
        all.faces().any(|face| all.with_face_data(face.id, glyph).flatten().is_some())
    };
    Ok(letters.iter().copied().filter(|c| !has(*c)).collect())
}
