//! The macros that turn cases into tests.

/// Tests of their own, each on a fresh store.
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite {
    ($fresh:expr, $module:ident, $with:ident, [$($case:ident),+ $(,)?]) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            $(
                #[test]
                fn $case() {
                    $crate::testkit::run(async {
                        let fresh = $fresh.await;
                        $crate::testkit::$with(fresh, $crate::testkit::cases::$module::$case).await
                    });
                }
            )+
        }
    };
}

/// Tests that run all at once, each on a fresh store.
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_together {
    ($fresh:expr, $module:ident, [$($case:ident),+ $(,)?]) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            static TOGETHER: $crate::testkit::Together = $crate::testkit::Together::new();

            fn cases() -> Vec<$crate::testkit::Case> {
                vec![$(
                    (stringify!($case), Box::pin(async {
                        let fresh = $fresh.await;
                        $crate::testkit::with_store(fresh, $crate::testkit::cases::$module::$case).await
                    })),
                )+]
            }

            $(
                #[test]
                fn $case() {
                    TOGETHER.check(stringify!($case), cases);
                }
            )+
        }
    };
}

/// Random operations against a model, in so many sequences (times `TORTURE`, if that is set).
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_model {
    ($fresh:expr, $sequences:expr) => {
        mod model {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn random_operations_do_what_the_model_does() {
                $crate::testkit::sequences::check($sequences, || async { $fresh.await });
            }
        }
    };
}

/// Tests for [`KvStore`](crate::KvStore).
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_kv {
    ($fresh:expr) => {
        $crate::__store_suite! {
            $fresh, kv, with_store, [
                what_is_put_is_read,
                an_absent_key_reads_as_nothing,
                a_fresh_store_is_empty,
                a_put_replaces_the_value,
                every_write_has_a_greater_revision,
                an_entry_carries_the_revision_of_its_own_last_write,
                reading_makes_no_revision,
                the_revision_of_the_store_covers_what_was_written,
                a_deleted_entry_is_gone,
                deleting_what_is_absent_writes_nothing,
                a_deleted_key_can_be_put_again,
                an_empty_value_is_a_value,
                keys_and_values_are_any_bytes,
                a_key_and_its_extensions_are_different_entries,
                a_scan_is_in_the_order_of_bytes,
                a_scan_includes_its_start_and_excludes_its_end,
                a_scan_stops_at_its_limit,
                pages_put_together_are_the_whole,
                open_bounds_reach_to_both_ends,
                a_scan_that_ends_before_it_starts_is_empty,
                a_scan_of_a_prefix_reads_what_is_under_it,
                a_long_scan_is_whole,
                the_empty_key_names_no_entry,
                the_longest_key_is_kept,
                a_key_that_is_too_long_is_refused,
                the_largest_value_is_kept,
                a_value_that_is_too_large_is_refused,
                writers_at_once_each_get_a_revision_of_their_own,
                a_write_is_seen_by_others_as_soon_as_it_returns,
            ]
        }
    };
}

/// Tests for [`CasStore`](crate::CasStore).
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_cas {
    ($fresh:expr) => {
        $crate::__store_suite! {
            $fresh, cas, with_store, [
                a_commit_writes_everything_in_one_revision,
                a_commit_with_a_broken_guard_writes_nothing,
                a_conflict_tells_how_the_failed_guards_stand,
                a_conflict_makes_no_revision,
                an_absent_guard_holds_once,
                an_at_guard_holds_for_the_last_write_only,
                writing_the_same_value_again_breaks_an_at_guard,
                deleting_and_putting_again_breaks_an_at_guard,
                an_absent_guard_holds_where_an_entry_was_deleted,
                an_absent_guard_fails_on_an_empty_value,
                a_guard_may_stand_where_nothing_is_written,
                a_commit_without_guards_happens,
                an_entry_can_be_deleted_at_its_revision_only,
                a_commit_may_delete_what_is_absent,
                a_commit_that_changes_nothing_makes_no_revision,
                of_many_racing_commits_one_wins,
                racing_increments_add_up,
                an_identical_commit_sent_again_conflicts_with_itself,
                commits_in_flight_are_decided_one_after_another,
                a_scan_never_shows_half_a_commit,
                a_commit_without_a_write_is_refused,
                a_key_written_twice_is_refused,
                a_key_guarded_twice_is_refused,
                a_commit_may_have_as_many_writes_and_guards_as_allowed,
                a_commit_with_too_many_writes_is_refused,
                a_commit_with_too_many_guards_is_refused,
                the_largest_commit_happens,
                a_commit_that_is_too_large_is_refused,
                a_commit_with_a_bad_key_or_value_is_refused,
            ]
        }
    };
}

/// Tests for [`ExpirableStore`](crate::ExpirableStore), all at once, as they wait for leases.
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_expirable {
    ($fresh:expr) => {
        $crate::__store_suite_together! {
            $fresh, expirable, [
                a_leased_entry_is_there_for_its_ttl,
                a_leased_entry_is_gone_when_its_lease_has_run_out,
                a_renewed_lease_lives_on,
                renewals_do_not_add_up,
                a_lease_that_ran_out_is_not_revived,
                all_entries_of_a_lease_go_in_one_commit_without_a_reader,
                an_expiry_has_a_revision,
                a_plain_put_takes_an_entry_off_its_lease,
                a_leased_put_moves_an_entry_to_its_lease,
                a_plain_entry_can_be_put_on_a_lease,
                a_deleted_entry_leaves_its_lease,
                an_entry_of_a_commit_can_be_leased,
                leases_run_out_each_for_itself,
                an_expired_entry_is_absent_for_guards,
                a_lease_without_entries_runs_out,
                a_short_ttl_is_lengthened,
                a_ttl_is_rounded_up_to_whole_seconds,
                a_lease_shows_on_its_entries,
                revoking_ends_a_lease_and_its_entries,
                revoking_what_is_gone_succeeds,
                renewing_an_unknown_lease_answers_gone,
                writing_under_an_unknown_lease_is_refused,
                a_conflict_comes_before_a_lease_that_is_gone,
                lease_ids_are_never_given_twice,
                a_ttl_beyond_the_longest_is_refused,
                granting_and_renewing_make_no_revision,
                leased_writes_keep_the_limits,
            ]
        }
    };
}

/// Tests for [`WatchableStore`](crate::WatchableStore).
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_watchable {
    ($fresh:expr) => {
        $crate::__store_suite! {
            $fresh, watchable, with_store, [
                later_commits_are_told_in_their_order,
                a_watch_starts_behind_its_revision,
                a_put_is_told_whole,
                a_deletion_is_told,
                a_commit_is_told_as_one_batch,
                a_batch_holds_only_what_is_under_the_prefix,
                commits_elsewhere_are_not_told,
                a_key_is_under_itself,
                a_prefix_may_end_in_the_last_byte,
                a_conflict_is_not_told,
                deleting_what_is_absent_is_not_told,
                a_waiting_watch_wakes,
                a_dropped_next_loses_nothing,
                watches_are_independent,
                what_is_told_can_be_read,
                under_many_writers_nothing_is_missing_or_doubled,
                who_reads_and_then_watches_misses_nothing,
                a_revision_ahead_is_waited_for,
                who_is_too_late_is_told_so,
                watching_after_the_present_revision_always_works,
            ]
        }
    };
}

/// Tests for stores that outlive their process.
#[macro_export]
#[doc(hidden)]
macro_rules! __store_suite_durable {
    ($fresh:expr) => {
        $crate::__store_suite! {
            $fresh, durable, with_backend, [
                what_was_written_is_there_after_opening_again,
                revisions_go_on_rising_after_opening_again,
                guards_hold_across_opening_again,
                the_history_ends_with_the_process_and_says_so,
                leases_live_on_after_opening_again,
                an_entry_whose_lease_nobody_renews_goes_after_opening_again,
                lease_ids_are_not_given_again_after_opening_again,
                a_closed_store_is_unavailable_and_its_watches_end,
            ]
        }
    };
}
