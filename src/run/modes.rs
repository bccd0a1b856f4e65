//! Modes: closed choices that have a name each, in a table `[(name, mode)]` whose first entry is the default.

/// The name of a mode.
pub fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], mode: T) -> &'static str {
    names.iter().find(|(_, m)| *m == mode).map_or("", |(name, _)| name)
}

/// The same table for whoever has another default.
pub fn led_by<T: Copy + PartialEq>(names: &[(&'static str, T)], first: T) -> Vec<(&'static str, T)> {
    let (mut led, rest): (Vec<_>, Vec<_>) = names.iter().copied().partition(|(_, mode)| *mode == first);
    led.extend(rest);
    led
}
