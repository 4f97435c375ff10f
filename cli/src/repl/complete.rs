//! What Tab offers at `master>`: commands, their flags, and the workers there are.

use clap::CommandFactory;
use reedline::{Completer, CompletionResult, Span, Suggestion};

use crate::client::Client;
use crate::grammar::ReplLine;

/// Commands whose second word is a worker.
const OF_WORKERS: [&str; 3] = ["task", "stats", "workers"];

/// Offers words.
pub(super) struct Words {
    client: Client,
    grammar: clap::Command,
}

impl Words {
    pub(super) fn new(client: Client) -> Self {
        Self { client, grammar: ReplLine::command() }
    }

    /// Every word that may stand behind `before`.
    fn offers(&self, before: &[&str]) -> Vec<String> {
        let Some(first) = before.first() else {
            return self
                .grammar
                .get_subcommands()
                .map(|command| command.get_name().to_owned())
                .collect();
        };
        let mut offers = Vec::new();
        if OF_WORKERS.contains(first)
            && before.len() == 1
            && let Ok(list) = self.client.workers()
        {
            offers.extend(list.workers.into_iter().map(|worker| worker.id));
        }
        if let Some(command) = self.grammar.find_subcommand(first) {
            let flags = command.get_arguments().filter_map(|flag| flag.get_long());
            offers.extend(flags.map(|flag| format!("--{flag}")));
            offers.extend(command.get_subcommands().map(|inner| inner.get_name().to_owned()));
        }
        offers
    }
}

impl Completer for Words {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        let line = line.get(..position).unwrap_or(line);
        let start = line.rfind(' ').map_or(0, |space| space + 1);
        let begun = &line[start..];
        let before: Vec<&str> = line[..start].split_whitespace().collect();
        let suggestions: Vec<Suggestion> = self
            .offers(&before)
            .into_iter()
            .filter(|offer| offer.starts_with(begun))
            .map(|value| Suggestion {
                value,
                span: Span::new(start, position.max(start)),
                append_whitespace: true,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}
