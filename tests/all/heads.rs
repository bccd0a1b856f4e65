//! Heads of one output, regression, several labels, and the ways to name a target.
