//! `config`: each setting with its value and where it comes from.

use super::DONE;
use crate::failure::Failure;
use crate::grammar::{MasterArgs, WorkerArgs};
use crate::output::{Screen, Table, write_json};
use crate::settings::Settings;

/// Looks every setting up, without any role's flags, and shows it.
pub fn show_config(
    settings: &mut Settings,
    url: Option<&str>,
    json: bool,
    screen: &mut Screen,
) -> Result<u8, Failure> {
    settings.url(url)?;
    settings.user()?;
    settings.only_show();
    settings.master(&MasterArgs::default())?;
    settings.worker(&WorkerArgs::default())?;
    if json {
        let list: Vec<_> = settings
            .shown()
            .iter()
            .map(|shown| {
                serde_json::json!({
                    "key": shown.key, "value": shown.value, "origin": shown.origin.to_string(),
                })
            })
            .collect();
        write_json(screen, &list)?;
        return DONE;
    }
    let mut table = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for shown in settings.shown() {
        table.row([shown.key.to_owned(), shown.value.clone(), shown.origin.to_string()]);
    }
    screen.line(table.show())?;
    DONE
}
