//! The hands, asked over their socket as the head asks them, on real mounts, cgroups, processes and a real PostgreSQL.
//!
//! Hands are forked, so every test must start in a process with one thread: this target brings its own harness, which
//! runs the tests one after another and speaks as much of libtest's command line as cargo and nextest use. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

mod hostile;
mod mariadb;
mod postgres;
mod processes;
mod server;
mod service;
mod stage;
mod volumes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

const TESTS: [(&str, fn()); 24] = [
    (
        "volumes::a_csi_volume_is_read_where_kubelet_mounts_it",
        volumes::csi,
    ),
    (
        "volumes::a_bare_directory_is_no_mounted_volume",
        volumes::unmounted,
    ),
    ("volumes::local_nfs_and_empty_dir_volumes", volumes::other_kinds),
    (
        "volumes::host_paths_only_below_the_allowed_roots",
        volumes::host_paths,
    ),
    (
        "volumes::names_and_paths_of_a_locator_are_checked",
        volumes::locators,
    ),
    ("volumes::the_subpath_stands_for_the_volume", volumes::sub_path),
    (
        "hostile::nothing_leads_out_and_nothing_blocks",
        hostile::links_and_kinds,
    ),
    ("hostile::a_huge_directory_is_bounded", hostile::huge_directory),
    (
        "hostile::hands_cannot_write_and_have_no_network",
        hostile::privileges,
    ),
    (
        "hostile::sessions_are_bounded_in_number_and_time",
        hostile::sessions,
    ),
    (
        "processes::every_cgroup_shape_in_a_process_table",
        processes::shapes,
    ),
    ("processes::which_process_is_the_postmaster", processes::choice),
    (
        "processes::a_process_whose_first_thread_ended_is_not_gone",
        processes::first_thread_ended,
    ),
    (
        "processes::a_real_process_whose_first_thread_ended",
        processes::first_thread_really_ended,
    ),
    (
        "processes::no_more_processes_than_are_looked_at",
        processes::too_many,
    ),
    ("processes::a_real_process_in_a_real_cgroup", processes::real),
    ("server::a_connection_as_the_servers_own_user", server::peer),
    ("server::a_server_of_uid_0_is_refused", server::root),
    ("server::a_server_that_does_not_accept_is_hung", server::hung),
    (
        "service::an_instance_is_inspected_running_stopped_and_dead",
        service::inspect,
    ),
    (
        "service::answers_come_in_time_when_the_hands_do_not",
        service::in_time,
    ),
    ("mariadb::a_galera_node_is_read_in_every_state", mariadb::life),
    ("mariadb::what_must_not_be_recovered_is_not", mariadb::refusals),
    (
        "mariadb::whatever_a_hostile_server_starts_ends_with_it",
        mariadb::hostile,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments[0].ends_with("/postgres") {
        return stage::stub_server(&arguments[1..]);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        if !has("--ignored") {
            for (name, _) in TESTS {
                println!("{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments[1..]
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |name: &str| {
        let matches = |filter: &&String| {
            if has("--exact") {
                name == filter.as_str()
            } else {
                name.contains(filter.as_str())
            }
        };
        filters.is_empty() || filters.iter().any(matches)
    };
    stage::own_mounts();
    let mut failed = 0;
    for (name, test) in TESTS.into_iter().filter(|(name, _)| wanted(name)) {
        let outcome = catch_unwind(AssertUnwindSafe(test));
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        failed += i32::from(outcome.is_err());
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
