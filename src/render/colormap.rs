//! Colour maps by matplotlib's names.

use colorgrad::Gradient;

/// A colour map from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colormap {
    /// Perceptually uniform, blue over green to yellow.
    Viridis,
    /// Blue over gray to red, the default for signed relevance.
    Coolwarm,
    /// The rainbow of older papers.
    Jet,
    /// A smoother rainbow.
    Turbo,
    /// Perceptually uniform, black over red to yellow: the default for unsigned relevance, since its ends are those of brightness and it
    /// shares no colour with what is under it in grey.
    Inferno,
    /// Black to white.
    Gray,
}

/// Names on the command line.
pub const COLORMAPS: &[(&str, Colormap)] = &[
    ("viridis", Colormap::Viridis),
    ("coolwarm", Colormap::Coolwarm),
    ("jet", Colormap::Jet),
    ("turbo", Colormap::Turbo),
    ("inferno", Colormap::Inferno),
    ("gray", Colormap::Gray),
];

/// Moreland's diverging map, every fourth of its 33 colours.
const COOLWARM: [[u8; 3]; 9] = [
    [59, 76, 192],
    [98, 130, 234],
    [141, 176, 254],
    [184, 208, 249],
    [221, 221, 221],
    [245, 196, 173],
    [244, 154, 123],
    [222, 96, 77],
    [180, 4, 38],
];

const JET: [(f32, [u8; 3]); 6] = [
    (0.0, [0, 0, 128]),
    (0.125, [0, 0, 255]),
    (0.375, [0, 255, 255]),
    (0.625, [255, 255, 0]),
    (0.875, [255, 0, 0]),
    (1.0, [128, 0, 0]),
];

impl Colormap {
    /// 256 colours from 0 to 1.
    pub fn table(self) -> [[u8; 3]; 256] {
        let from = |gradient: &dyn Fn(f32) -> [u8; 3]| std::array::from_fn(|i| gradient(i as f32 / 255.0));
        let preset = |gradient: &dyn Gradient| from(&|t| gradient.at(t).to_rgba8()[..3].try_into().unwrap_or_default());
        match self {
            Colormap::Viridis => preset(&colorgrad::preset::viridis()),
            Colormap::Turbo => preset(&colorgrad::preset::turbo()),
            Colormap::Inferno => preset(&colorgrad::preset::inferno()),
            Colormap::Gray => from(&|t| [(t * 255.0).round() as u8; 3]),
            Colormap::Coolwarm => {
                let stops: Vec<_> = COOLWARM.iter().enumerate().map(|(i, c)| (i as f32 / 8.0, *c)).collect();
                from(&|t| between(&stops, t))
            }
            Colormap::Jet => from(&|t| between(&JET, t)),
        }
    }
}

/// Linear interpolation between colour stops.
fn between(stops: &[(f32, [u8; 3])], t: f32) -> [u8; 3] {
    let next = stops.iter().position(|(at, _)| *at >= t).unwrap_or(stops.len() - 1).max(1);
    let ((a, from), (b, to)) = (stops[next - 1], stops[next]);
    let share = ((t - a) / (b - a)).clamp(0.0, 1.0);
    std::array::from_fn(|c| (f32::from(from[c]) + share * (f32::from(to[c]) - f32::from(from[c]))).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_begin_and_end_as_matplotlib_s() {
        for (map, first, last) in [
            (Colormap::Viridis, [68, 1, 84], [253, 231, 37]),
            (Colormap::Coolwarm, [59, 76, 192], [180, 4, 38]),
            (Colormap::Jet, [0, 0, 128], [128, 0, 0]),
            (Colormap::Inferno, [0, 0, 4], [252, 255, 164]),
            (Colormap::Gray, [0, 0, 0], [255, 255, 255]),
        ] {
            let table = map.table();
            for (got, want) in [(table[0], first), (table[255], last)] {
                let off = got.iter().zip(want).map(|(g, w)| g.abs_diff(w)).max().unwrap();
                assert!(off <= 3, "{map:?}: {got:?} instead of {want:?}");
            }
        }
        assert_eq!(Colormap::Coolwarm.table()[128].iter().max(), Some(&221));
    }
}
