//! Class activation maps: which features of a layer speak for the explained class, and where are they?

mod cam_plus;
mod gradcam;
pub mod scorecam;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "class activation maps",
    question: "which features of a layer speak for the explained class, and where are they?",
    notice: None,
    methods: &[
        gradcam::GRADCAM,
        gradcam::GRADCAM_PLUSPLUS,
        gradcam::HIRESCAM,
        gradcam::XGRADCAM,
        gradcam::LAYERCAM,
        gradcam::EIGENCAM,
        scorecam::ENTRY,
        cam_plus::GRADCAM_PLUS,
        cam_plus::XGRADCAM_PLUS,
    ],
};
