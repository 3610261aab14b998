//! Usage on the disk: sums by the minute, later by the hour.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::Disk;
use crate::TelemetryError;
use crate::books::{Key, Minute};
use crate::limits::{USAGE_HOURS_AGE, USAGE_MINUTES_AGE};
use crate::totals::{Totals, outcome_labels};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3_600;
const BYTE_NS_PER_BYTE_S: u128 = 1_000_000_000;

impl Disk {
    /// Adds sums to what is there.
    pub(crate) fn write_usage<'a>(
        &mut self,
        totals: impl Iterator<Item = (&'a (Minute, Key), &'a Totals)>,
    ) -> Result<(), TelemetryError> {
        self.transaction(|db| {
            for ((minute, key), totals) in totals {
                add(db, minute.0 * MINUTE_S, key, totals)?;
            }
            Ok(())
        })
    }

    /// The sums of every function whose minutes or hours touch the span, in seconds since the Unix epoch.
    pub(crate) fn read_usage(
        &mut self,
        since_s: u64,
        until_s: u64,
    ) -> Result<BTreeMap<(String, String), Totals>, TelemetryError> {
        let (since, until) = (i64::try_from(since_s).unwrap_or(i64::MAX), i64::try_from(until_s).unwrap_or(i64::MAX));
        let mut usage: BTreeMap<(String, String), Totals> = BTreeMap::new();
        let sql = "SELECT app, function, sum(cold), sum(fresh), sum(reused), sum(wall_ns), sum(cpu_ns), sum(queued_ns),
                sum(memory_byte_s), sum(memory_rest), sum(bytes_in), sum(bytes_out)
            FROM usage WHERE start_s + span_s > ?1 AND start_s < ?2 GROUP BY app, function";
        let connection = self.connection()?;
        let mut query = connection.prepare_cached(sql)?;
        let mut rows = query.query([since, until])?;
        while let Some(row) = rows.next()? {
            let totals = usage.entry((row.get(0)?, row.get(1)?)).or_default();
            totals.starts = [row.get(2)?, row.get(3)?, row.get(4)?];
            (totals.wall_ns, totals.cpu_ns, totals.queued_ns) = (row.get(5)?, row.get(6)?, row.get(7)?);
            totals.memory_byte_ns =
                u128::from(row.get::<_, u64>(8)?) * BYTE_NS_PER_BYTE_S + u128::from(row.get::<_, u64>(9)?);
            (totals.bytes_in, totals.bytes_out) = (row.get(10)?, row.get(11)?);
        }
        let sql = "SELECT app, function, outcome, sum(invocations)
            FROM usage_outcome WHERE start_s + span_s > ?1 AND start_s < ?2 GROUP BY app, function, outcome";
        let mut query = connection.prepare_cached(sql)?;
        let mut rows = query.query([since, until])?;
        while let Some(row) = rows.next()? {
            let outcome: String = row.get(2)?;
            // An outcome that this version does not know any more is counted as the last known kind, `internal`.
            let place = outcome_labels().position(|label| label == outcome).unwrap_or(crate::totals::OUTCOMES - 1);
            usage.entry((row.get(0)?, row.get(1)?)).or_default().outcomes[place] += row.get::<_, u64>(3)?;
        }
        Ok(usage)
    }

    /// Turns old minutes into hours, and drops hours past their age.
    pub(crate) fn fold_old_usage(&mut self, now_unix_ns: u64) -> Result<(), TelemetryError> {
        let now_s = now_unix_ns / 1_000_000_000;
        let minutes_before = now_s.saturating_sub(USAGE_MINUTES_AGE.as_secs()) / HOUR_S * HOUR_S;
        let hours_before = now_s.saturating_sub(USAGE_HOURS_AGE.as_secs()) / HOUR_S * HOUR_S;
        self.transaction(|db| {
            for sql in [fold_usage().as_str(), FOLD_OUTCOMES] {
                db.prepare_cached(sql)?.execute([minutes_before])?;
            }
            for table in ["usage", "usage_outcome"] {
                db.prepare_cached(&format!("DELETE FROM {table} WHERE span_s = 60 AND start_s < ?"))?
                    .execute([minutes_before])?;
                db.prepare_cached(&format!("DELETE FROM {table} WHERE start_s < ?"))?.execute([hours_before])?;
            }
            Ok(())
        })
    }
}

/// Columns of `usage` that are summed.
const SUMS: [&str; 10] = [
    "cold",
    "fresh",
    "reused",
    "wall_ns",
    "cpu_ns",
    "queued_ns",
    "memory_byte_s",
    "memory_rest",
    "bytes_in",
    "bytes_out",
];

/// An insert into `usage` from `source` that adds to the row if there is one.
fn insert_or_add(source: &str) -> String {
    let columns = SUMS.join(", ");
    let add = SUMS.map(|sum| format!("{sum} = {sum} + excluded.{sum}")).join(", ");
    format!("INSERT INTO usage (start_s, span_s, app, function, {columns}) {source} ON CONFLICT DO UPDATE SET {add}")
}

fn fold_usage() -> String {
    let sums = SUMS.map(|sum| format!("sum({sum})")).join(", ");
    insert_or_add(&format!(
        "SELECT start_s - start_s % 3600, 3600, app, function, {sums}
        FROM usage WHERE span_s = 60 AND start_s < ?1 GROUP BY 1, 3, 4"
    ))
}

const FOLD_OUTCOMES: &str = "
    INSERT INTO usage_outcome (start_s, span_s, app, function, outcome, invocations)
    SELECT start_s - start_s % 3600, 3600, app, function, outcome, sum(invocations)
    FROM usage_outcome WHERE span_s = 60 AND start_s < ?1 GROUP BY 1, 3, 4, 5
    ON CONFLICT DO UPDATE SET invocations = invocations + excluded.invocations";

fn add(db: &Connection, start_s: u64, key: &Key, totals: &Totals) -> Result<(), TelemetryError> {
    let sql = insert_or_add("VALUES (?, 60, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    let (app, function) = (key.app(), key.function());
    db.prepare_cached(&sql)?.execute(params![
        start_s,
        app,
        function,
        totals.starts[0],
        totals.starts[1],
        totals.starts[2],
        column(totals.wall_ns.into()),
        column(totals.cpu_ns.into()),
        column(totals.queued_ns.into()),
        column(totals.memory_byte_ns / BYTE_NS_PER_BYTE_S),
        column(totals.memory_byte_ns % BYTE_NS_PER_BYTE_S),
        column(totals.bytes_in.into()),
        column(totals.bytes_out.into())
    ])?;
    let sql = "INSERT INTO usage_outcome (start_s, span_s, app, function, outcome, invocations)
        VALUES (?, 60, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET invocations = invocations + excluded.invocations";
    let mut insert = db.prepare_cached(sql)?;
    for (outcome, invocations) in outcome_labels().zip(totals.outcomes).filter(|(_, invocations)| *invocations > 0) {
        insert.execute(params![start_s, app, function, outcome, invocations])?;
    }
    Ok(())
}

/// What a column takes in one flush: 2^53, a hundred days of time and nine petabytes. A sum past it was made of nonsense,
/// and must not keep everything else from being written.
fn column(sum: u128) -> i64 {
    const SUM_MAX: u64 = 1 << 53;
    u64::try_from(sum).unwrap_or(SUM_MAX).min(SUM_MAX).cast_signed()
}
