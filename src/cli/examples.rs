//! Three examples a command, shown below its help and in its manual page.

pub const EXPLAIN: &str = "Examples:
  vitx explain cat.jpg
  vitx explain -m ./my-checkpoint --method gae,rollout --target top:2 -o out photos/
  vitx explain --text 'A charming little film.'";

pub const PREDICT: &str = "Examples:
  vitx predict cat.jpg
  vitx predict -m openai/clip-vit-base-patch32 --classes 'cat,dog' --prompt 'a photo of a {}' photos/
  find photos -name '*.png' | vitx predict -";

pub const COMPARE: &str = "Examples:
  vitx compare cat.jpg
  vitx compare --method gae,attn-lrp,gradcam --target top:2 -o sheet.png cat.jpg
  vitx compare --method gae,alti --text 'A charming little film.'";

pub const HEADS: &str = "Examples:
  vitx heads cat.jpg
  vitx heads --layer 0,last -o heads.png cat.jpg
  vitx heads --layer last --text 'A charming little film.'";

pub const EVALUATE: &str = "Examples:
  vitx evaluate --data labels.csv --method gae,rollout
  vitx evaluate --data classes/ --method all --metric positive,negative --report report.html
  vitx evaluate --data sentences.csv --method gae,attn-lrp --latex table.tex --resume";

pub const TUNE: &str = "Examples:
  vitx tune --data labels.csv
  vitx tune --data labels.csv --method 'gae:start_layer=0|3|6' --metric miou
  vitx tune --data labels.csv --budget 2000 -o grid.png";

pub const SUMMARY: &str = "Examples:
  vitx summary --data classes/
  vitx summary --data photos/ -m ./my-checkpoint --method attn-lrp --report summary.html
  vitx summary --data reviews.csv --target label --top 50 --json";

pub const MAXIMIZE: &str = "Examples:
  vitx maximize --target flower -o flower.png
  vitx maximize --unit layer=8,channel=3 --steps 64 -o unit.png
  vitx maximize --target flower --frames steps/ --every 8 -o flower.png";

pub const WORKER: &str = "Examples:
  vitx worker --root photos/ < requests.jsonl > answers.jsonl
  vitx worker -m ./my-checkpoint --method attn-lrp --listen 127.0.0.1:8080
  vitx worker -m demo-bert --unordered --batch-size 16 --max-wait 20";

pub const METHODS: &str = "Examples:
  vitx methods
  vitx methods gae
  vitx methods reslrp:gamma=10";

pub const METRICS: &str = "Examples:
  vitx metrics
  vitx metrics road
  vitx metrics --json";

pub const MODELS: &str = "Examples:
  vitx models
  vitx models --json
  vitx models --markdown";

pub const INSPECT: &str = "Examples:
  vitx inspect demo-vit
  vitx inspect ./my-checkpoint --labels
  vitx inspect google/vit-base-patch16-224 --json";

pub const COMPLETIONS: &str = "Examples:
  vitx completions bash > ~/.local/share/bash-completion/completions/vitx
  vitx completions zsh > ~/.zfunc/_vitx
  vitx completions fish > ~/.config/fish/completions/vitx.fish";

pub const MAN: &str = "Examples:
  vitx man > vitx.1
  vitx man | man -l -
  vitx man > ~/.local/share/man/man1/vitx.1";

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use clap::{CommandFactory, Parser};

    /// Words as a shell splits them; what follows a redirection is the shell's own.
    fn words(line: &str) -> Vec<String> {
        let line = line.rsplit(" | vitx ").next().unwrap();
        let line = [" > ", " < ", " | "].iter().fold(line, |line, sign| line.split(sign).next().unwrap());
        let quoted = line.split('\'').enumerate();
        let parts = quoted.flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().map(String::from).collect(),
            _ => vec![part.to_string()],
        });
        parts.collect()
    }

    #[test]
    fn every_command_has_three_examples_that_can_be_typed() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().unwrap_or_else(|| panic!("{}", command.get_name())).to_string();
            let lines: Vec<&str> = help.lines().skip(1).map(str::trim).collect();
            assert_eq!(lines.len(), 3, "{}", command.get_name());
            for line in lines {
                assert!(line.contains(&format!("vitx {}", command.get_name())), "{line}");
                let all = words(line);
                let given = if all[0] == "vitx" { all } else { [vec!["vitx".to_string()], all].concat() };
                assert!(Cli::try_parse_from(&given).is_ok(), "{given:?}");
            }
        }
    }
}
