//! The shell completion, made from the table of commands when the tests run: the binary has none of it.

use super::verbs::{VERBS, Verb, base, global_flags};
use crate::argv::is_switch;
use clap::Arg;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/completions/bash/orlop");

const HEAD: &str = r#"# shellcheck shell=bash
# bash completion for orlop. Made from its table of commands: BLESS=1 cargo test -p orlop --lib completion

_orlop() {
    local cur=${COMP_WORDS[COMP_CWORD]#=} words=() verb='' prev word root=() args=0 i
    local -A flags values
"#;

const TAIL: &str = r#"    # bash makes a word of the = between a flag and its value.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD}"; do
        [[ $word == = ]] || words+=("$word")
    done
    prev=${words[-1]}
    for ((i = 1; i < ${#words[@]}; i++)); do
        word=${words[i]}
        [[ $word != --root ]] || root=(--root "${words[i + 1]}")
        if [[ " ${values[$verb]} " == *" $word "* ]]; then
            ((i++))
        elif [[ $word != -* ]]; then
            if [[ -z $verb ]]; then verb=$word; else ((args++)); fi
        fi
    done
    COMPREPLY=()
    if [[ " ${values[$verb]} " == *" $prev "* ]]; then
        case $verb:$prev in
        *:--format | list:-f | ps:-f) mapfile -t COMPREPLY < <(compgen -W 'table json' -- "$cur") ;;
        *:--log-format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur") ;;
        *:--log-level) mapfile -t COMPREPLY < <(compgen -W 'error warning debug' -- "$cur") ;;
        *:--rootless) mapfile -t COMPREPLY < <(compgen -W 'true false auto' -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${flags[$verb]}" -- "$cur")
    elif [[ -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$verbs help" -- "$cur")
    elif [[ $verb == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur")
    elif [[ $args == 0 && " $of_container " == *" $verb "* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" "${root[@]}" list -q 2>/dev/null)" -- "$cur")
    elif [[ $args == 1 && $verb == kill ]]; then
        mapfile -t COMPREPLY < <(compgen -A signal -- "${cur^^}")
    fi
}
complete -F _orlop orlop
"#;

fn spellings(arg: &Arg) -> impl Iterator<Item = String> {
    let long = arg.get_long().map(|name| format!("--{name}"));
    long.into_iter().chain(arg.get_short().map(|letter| format!("-{letter}")))
}

fn script() -> String {
    let mut text = HEAD.to_string();
    let names = |verbs: &mut dyn Iterator<Item = &Verb>| verbs.map(|verb| verb.name).collect::<Vec<_>>().join(" ");
    text += &format!("    local verbs='{}'\n", names(&mut VERBS.iter()));
    // Those that make a container take an id that there is not yet; of `mounts` it is the second word.
    let there = |verb: &&Verb| verb.args.0 > 0 && !matches!(verb.name, "create" | "run" | "restore" | "mounts");
    text += &format!("    local of_container='{}'\n", names(&mut VERBS.iter().filter(there)));
    let commands = VERBS.iter().map(|verb| (verb.name, (verb.flags)())).chain([("", global_flags())]);
    for (name, flags) in commands {
        let command = base("orlop").args(flags);
        let all = || command.get_arguments().filter(|arg| !arg.is_hide_set());
        let flags: Vec<String> = all().flat_map(spellings).collect();
        let values: Vec<String> = all().filter(|arg| !is_switch(arg)).flat_map(spellings).collect();
        text += &format!("    flags[{name}]='{}'\n", flags.join(" "));
        text += &format!("    values[{name}]='{}'\n", values.join(" "));
    }
    // bash takes no empty key.
    text.replace("flags[]", "flags[-]").replace("values[]", "values[-]") + &TAIL.replace("[$verb]}", "[${verb:--}]-}")
}

#[test]
fn completion_is_that_of_the_commands() {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(PATH, script()).unwrap();
    }
    let kept = std::fs::read_to_string(PATH).unwrap();
    assert!(kept == script(), "BLESS=1 makes {PATH} anew");
}

/// What bash offers behind the words, the last of which is begun.
#[expect(clippy::disallowed_methods, reason = "the script is bash's")]
fn offered(words: &[&str]) -> String {
    let line = r#"eval "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _orlop; echo "${COMPREPLY[@]}""#;
    let bash = std::process::Command::new("bash").args(["-uc", line, &script()]).args(words).output().unwrap();
    assert!(bash.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&bash.stderr));
    String::from_utf8(bash.stdout).unwrap().trim_end().to_string()
}

#[test]
fn words_are_completed() {
    for (words, want) in [
        (&["orlop", "ki"][..], "kill"),
        (&["orlop", "--root", "/x", "st"], "start state"),
        (&["orlop", "--log-f"], "--log-format"),
        (&["orlop", "--log-format", ""], "text json"),
        (&["orlop", "--log-format", "=", "j"], "json"),
        (&["orlop", "list", "-f", "t"], "table"),
        (&["orlop", "--debug", "exec", "--pre"], "--preserve-fds"),
        (&["orlop", "create", "-f", "/etc/hostnam"], "/etc/hostname"),
        (&["orlop", "kill", "id", "sigter"], "SIGTERM"),
        (&["orlop", "help", "feat"], "features"),
    ] {
        assert_eq!(offered(words), want, "{words:?}");
    }
}
