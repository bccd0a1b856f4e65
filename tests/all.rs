//! The one integration-test binary: candle is linked once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

#[path = "all/support.rs"]
mod support;

#[cfg(feature = "cli")]
#[path = "all/backbones.rs"]
mod backbones;
#[path = "all/checkpoints.rs"]
mod checkpoints;
#[cfg(feature = "cli")]
#[path = "all/cli.rs"]
mod cli;
#[cfg(feature = "cli")]
#[path = "all/cli_evaluate.rs"]
mod cli_evaluate;
#[cfg(feature = "cli")]
#[path = "all/cli_methods.rs"]
mod cli_methods;
#[path = "all/conservation.rs"]
mod conservation;
#[path = "all/contract.rs"]
mod contract;
#[path = "all/corpora.rs"]
mod corpora;
#[path = "all/families.rs"]
mod families;
#[cfg(all(feature = "cli", feature = "demo"))]
#[path = "all/figures.rs"]
mod figures;
#[path = "all/golden.rs"]
mod golden;
#[path = "all/golden_methods.rs"]
mod golden_methods;
#[cfg(feature = "cli")]
#[path = "all/heads.rs"]
mod heads;
#[path = "all/hostile.rs"]
mod hostile;
#[path = "all/house.rs"]
mod house;
#[cfg(all(feature = "cli", feature = "hub"))]
#[path = "all/hub.rs"]
mod hub;
#[cfg(all(feature = "cli", feature = "hub"))]
#[path = "all/hub_failures.rs"]
mod hub_failures;
#[cfg(all(unix, feature = "cli", feature = "hub"))]
#[path = "all/hub_interrupts.rs"]
mod hub_interrupts;
#[cfg(all(feature = "cli", feature = "hub"))]
#[path = "all/hub_server.rs"]
mod hub_server;
#[cfg(feature = "cli")]
#[path = "all/judging.rs"]
mod judging;
#[path = "all/kin.rs"]
mod kin;
#[path = "all/loaders.rs"]
mod loaders;
#[cfg(feature = "cli")]
#[path = "all/long_runs.rs"]
mod long_runs;
#[path = "all/maximize.rs"]
mod maximize;
#[path = "all/metrics.rs"]
mod metrics;
#[path = "all/naive/mod.rs"]
mod naive;
#[path = "all/oracle.rs"]
mod oracle;
#[cfg(all(feature = "cli", feature = "demo"))]
#[path = "all/pages.rs"]
mod pages;
#[path = "all/pictures.rs"]
mod pictures;
#[cfg(feature = "cli")]
#[path = "all/processors.rs"]
mod processors;
#[cfg(all(feature = "cli", feature = "demo"))]
#[path = "all/readme.rs"]
mod readme;
#[cfg(feature = "cli")]
#[path = "all/shell.rs"]
mod shell;
#[path = "all/stages.rs"]
mod stages;
#[cfg(all(feature = "cli", feature = "demo"))]
#[path = "all/summary.rs"]
mod summary;
#[cfg(feature = "cli")]
#[path = "all/token_heads.rs"]
mod token_heads;
#[path = "all/tokenizing.rs"]
mod tokenizing;
#[path = "all/towers.rs"]
mod towers;
#[path = "all/twins.rs"]
mod twins;
#[path = "all/twins_methods.rs"]
mod twins_methods;
#[cfg(all(feature = "cli", feature = "demo"))]
#[path = "all/worker.rs"]
mod worker;
