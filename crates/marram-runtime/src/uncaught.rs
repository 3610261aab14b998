//! What a developer reads of an exception that nobody has caught: where it was in their code. The frames of the language's
//! engine say nothing to them, and are left out; where there are no others, they stay.

/// What ends the message to a caller. In the log itself it would point to itself.
pub(crate) const IN_THE_LOG: &str = "; its log says which";

/// Where JavaScript's engine has its own code; of a user's file, the path in the app stands there.
const PRELUDE: &str = "prelude.js:";
/// Where Python's engine has the standard library, and its own code.
const PYTHON: [&str; 2] = ["File \"/python/", "File \"/0/"];

/// A line of an account.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// A frame of the user's code.
    User,
    /// A frame of the engine's.
    Engine,
    /// It belongs to the frame above.
    Again,
    /// Something else, such as the line that a frame quotes.
    Other,
}

/// The stack of an error in JavaScript.
pub(crate) fn of_javascript(stack: &str) -> String {
    without_engine(stack, |line| {
        let Some(frame) = line.trim_start().strip_prefix("at ") else { return Line::Other };
        let place = frame.rsplit_once('(').map_or(frame, |(_, place)| place);
        match place {
            place if place.starts_with(PRELUDE) => Line::Engine,
            // A native function and a text that was parsed are nobody's file.
            place if place.starts_with("native") || place.starts_with('<') => Line::Other,
            _ => Line::User,
        }
    })
}

/// The traceback of an exception in Python. The engine's frames quote no lines: its sources are not there when it runs.
pub(crate) fn of_python(trace: &str) -> String {
    without_engine(trace, |line| {
        // A group of exceptions draws a margin.
        let line = line.trim_start_matches([' ', '|']);
        match line {
            line if PYTHON.iter().any(|own| line.starts_with(own)) => Line::Engine,
            line if line.starts_with("File \"") => Line::User,
            line if line.starts_with("[Previous line repeated") => Line::Again,
            _ => Line::Other,
        }
    })
}

fn without_engine(account: &str, of: impl Fn(&str) -> Line) -> String {
    if !account.lines().any(|line| of(line) == Line::User) {
        return account.to_owned();
    }
    let mut above = Line::Other;
    let kept = account.lines().filter(|line| {
        let line = of(line);
        if line != Line::Again {
            above = line;
        }
        above != Line::Engine
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_engine_go_where_others_are() {
        let stack = [
            "    at <input>:1:2",
            "    at parse (native)",
            "    at json (prelude.js:9:4)",
            "    at fetch (src/prelude.js:1:39)",
            "    at prelude.js:23:1",
        ];
        assert_eq!(of_javascript(&stack.join("\n")), [stack[0], stack[1], stack[3]].join("\n"));
        for alone in
            ["    at onFetchFailed (prelude.js:1:3)\n", "    at parse (native)\n    at json (prelude.js:9:4)", ""]
        {
            assert_eq!(of_javascript(alone), alone);
        }
        let trace = [
            "Traceback (most recent call last):",
            "  File \"/python/asyncio/base_events.py\", line 719, in run_until_complete",
            "  File \"/0/marram_engine/entry.py\", line 105, in _awaited",
            "  File \"app.py\", line 6, in fetch",
            "    return json.loads(\"{\")",
            "           ~~~~~~~~~~^^^^^",
            "  File \"/python/json/decoder.py\", line 345, in decode",
            "  [Previous line repeated 3 more times]",
            "ValueError: no",
        ];
        assert_eq!(of_python(&trace.join("\n")), [trace[0], trace[3], trace[4], trace[5], trace[8]].join("\n"));
        let group =
            ["  |   File \"/python/asyncio/taskgroups.py\", line 72, in f", "  |   File \"app.py\", line 25, in g"];
        assert_eq!(of_python(&group.join("\n")), group[1]);
        let alone = "Traceback (most recent call last):\n  File \"/0/marram.py\", line 216, in fetch\nTypeError: no\n";
        assert_eq!(of_python(alone), alone);
    }
}
