//! Where an exporter goes on. A cursor is believed if the trail holds the record that it names; if not, everything is
//! sent again, because the other way to be wrong is to leave something out.

use super::Shipper;
use crate::{
    cursor::Cursor,
    trail::{Line, TrailFault, TrailReader},
};

impl<T: TrailReader> Shipper<T> {
    /// Finds the place to go on from.
    pub(super) fn begin(&mut self) -> Result<(), TrailFault> {
        let found = self.file.load();
        let start = self.supply.open(None)?;
        self.cursor = Cursor::begin(start.log_id.clone());
        match found {
            Ok(None) => self.say_begin("no cursor yet"),
            Err(why) => self.doubt("export_cursor_unusable", &why),
            Ok(Some(cursor)) if cursor.log_id != start.log_id => {
                self.doubt("export_cursor_other_log", "it belongs to another audit log");
            }
            Ok(Some(cursor)) => {
                if self.is_confirmed(&cursor)? {
                    self.cursor = cursor;
                } else {
                    self.doubt(
                        "export_cursor_unconfirmed",
                        "the audit log does not hold the record that it names",
                    );
                    self.supply.open(None)?;
                }
            }
        }
        self.publish();
        self.glance();
        Ok(())
    }

    /// Goes to the cursor's place, if the record there is the one that was acknowledged. One that is gone from disk,
    /// with younger ones still there, cannot be asked.
    fn is_confirmed(&mut self, cursor: &Cursor) -> Result<bool, TrailFault> {
        let Some(place) = &cursor.acknowledged else {
            return Ok(true);
        };
        match self.supply.open(place.seq.checked_sub(1)) {
            Err(TrailFault::Ahead { .. }) => return Ok(false),
            opened => opened?,
        };
        match self.supply.next()? {
            None => Ok(false),
            Some(record) if record.seq == place.seq => Ok(Line::parse(&record)?.hash == place.hash),
            Some(record) => {
                self.supply.give_back(vec![record]);
                Ok(true)
            }
        }
    }

    fn say_begin(&self, why: &str) {
        let exporter = self.name.as_str();
        tracing::info!(
            code = "export_from_start",
            exporter,
            why,
            "the audit trail is exported from its first record"
        );
    }

    fn doubt(&self, code: &'static str, why: &str) {
        let exporter = self.name.as_str();
        tracing::warn!(
            code,
            exporter,
            why,
            "the cursor cannot be used: the audit trail is exported again from its first record"
        );
    }
}
