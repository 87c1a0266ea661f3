"""Mutants of the store: claiming, computing, publishing, releasing and removing a node."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

CLAIM, ATTEMPT, LOCAL, OWNER = "store/claim.py", "store/attempt.py", "store/local.py", "store/owner.py"
LEFTOVERS = "store/leftovers.py"

STORE = (
    # ---- claims ----
    Mutant(
        "a higher attempt number is not given way to",
        CLAIM,
        "    if max(tries, default=0) > attempt.number:\n        raise _GiveWay\n",
        "",
        ("store/test_races.py::test_claim_with_a_low_number_gives_way_to_later_attempts",),
    ),
    Mutant(
        "a claim does not give way to a live attempt",
        CLAIM,
        "        if found.alive:\n            raise in_progress(artifact, number, found.record)\n",
        "",
        ("store/test_replace.py::test_rejected_done_waits_for_an_attempt_that_is_alive",),
    ),
    Mutant(
        "a blind claim does not look at done after its link",
        CLAIM,
        "        done, judged = artifact.look_at_done()\n        if done is Done.ABSENT and number == 1:\n",
        "        done, judged = artifact.look_at_done()\n        if number == 1:\n",
        ("store/test_claim.py::test_claim_looks_at_done_again_after_linking",),
    ),
    Mutant(
        "a first name that was freed again is not noticed",
        CLAIM,
        "    if 1 not in tries:\n",
        "    if False:\n",
        ("store/test_replace.py::test_blind_claim_that_is_released_does_not_bypass_a_replacement",),
    ),
    Mutant(
        "what was set aside is not compared with what was judged",
        CLAIM,
        "        if identify(os.lstat(aside)) != judged:",
        "        if False:",
        ("store/test_lost_claim.py::test_replacer_that_is_taken_for_dead_leaves_the_takers_result",),
    ),
    Mutant(
        "files are removed beside an artifact that another machine has published",
        LEFTOVERS,
        "    if os.path.lexists(artifact.files.done):  # another machine",
        "    if False:  # another machine",
        ("store/test_races.py::test_overtaken_claim_keeps_the_published_files",),
    ),
    Mutant(
        "records of attempts that may still publish are removed",
        LEFTOVERS,
        "    return found is not None and isinstance(found.record, EndedRecord)\n",
        "    return found is not None\n",
        ("store/test_races.py::test_attempts_whose_owners_seem_dead_keep_their_names",),
    ),
    Mutant(
        "claimers that give way to each other do not pause",
        CLAIM,
        "        if tries >= _TRIES_AT_ONCE:",
        "        if tries > _MAX_TRIES:",
        ("store/test_races.py::test_claimers_that_give_way_pause_longer_each_time",),
    ),
    # ---- attempts ----
    Mutant(
        "a publish does not compare the attempt's name",
        ATTEMPT,
        "self._is_ours() and self._link(",
        "self._link(",
        ("store/test_races.py::test_attempt_whose_name_is_anothers_does_not_publish",),
    ),
    Mutant(
        "a release removes a name without comparing it",
        ATTEMPT,
        "self.owner is not None and self.number and (self._name_is_ours or self._is_ours()):",
        "self.owner is not None and self.number:",
        ("store/test_races.py::test_release_keeps_a_name_of_another_attempt",),
    ),
    Mutant(
        "an end is recorded over another owner's attempt",
        ATTEMPT,
        "        if not self._is_ours():\n            return\n",
        "",
        ("store/test_local.py::test_attempt_that_lost_its_name_writes_no_record",),
    ),
    Mutant(
        "an end that cannot be written does not retire its owner",
        LOCAL,
        "                    if retire:\n                        self.retire(owner)\n",
        "",
        (
            "store/test_failed_attempts.py::test_record_that_cannot_be_written_does_not_block_the_next_claim",
        ),
    ),
    Mutant(
        "a fork ends the attempt of its parent",
        ATTEMPT,
        "            return\n        with self.steps:\n            removed = False\n",
        "            pass\n        with self.steps:\n            removed = False\n",
        (
            "faults/test_node_threads_and_forks.py::test_fork_that_leaves_create_does_not_end_its_parents_attempt[raises-False]",
        ),
    ),
    Mutant(
        "files are not synced before the link that publishes them",
        ATTEMPT,
        "                    sync_tree(self._files.path)\n",
        "",
        ("store/test_durability.py::test_power_durability_syncs_everything_before_the_link",),
    ),
    # ---- the memory of a process ----
    Mutant(
        "the heartbeat comes once a lease instead of six times",
        LOCAL,
        "_BEATS_PER_LEASE = 6",
        "_BEATS_PER_LEASE = 1",
        ("store/test_local.py::test_heart_beats_six_times_in_a_lease",),
    ),
    Mutant(
        "a new owner's shorter lease does not hurry the heartbeat",
        LOCAL,
        "        self._changed.set()\n        if self._heart",
        "        if self._heart",
        ("store/test_local.py::test_new_owner_with_a_shorter_lease_beats_soon",),
    ),
    Mutant(
        "waiters are added without the lock",
        LOCAL,
        "        with self.lock:\n            if node not in self._attempts:",
        "        with contextlib.nullcontext():\n            if node not in self._attempts:",
        ("store/test_local.py::test_waiter_is_registered_under_the_lock_that_a_release_takes",),
    ),
    Mutant(
        "the heartbeat keeps idle owners",
        LOCAL,
        "if not owner.attempts and now - owner.idle_since >= self._idle_sec:",
        "if False:",
        ("store/test_local.py::test_heartbeat_ends_idle_owners_and_then_itself",),
    ),
    Mutant(
        "a fork is not held off while an owner is made",
        LOCAL,
        "os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release)\n",
        "os.register_at_fork(after_in_child=lambda: _lock.acquire(blocking=False))\n",
        (
            "faults/test_node_threads_and_forks.py::test_fork_while_a_store_is_first_used_keeps_no_lock_of_its_parents",
        ),
    ),
    Mutant(
        "the lock of an owner in a copy of this virtual machine is trusted",
        OWNER,
        "    return same_boot and locks_are_all_here(os.path.dirname(path))\n",
        "    return same_boot\n",
        ("store/test_local.py::test_copy_of_a_virtual_machine_waits_for_two_beats_before_it_takes_over",),
    ),
    # ---- removal ----
    Mutant(
        "a removal leaves its claim in the directory that it renames",
        "store/removal.py",
        "                attempt.take_first_name()\n",
        "                pass\n",
        ("store/test_races.py::test_removed_node_is_claimed_by_one_at_every_step",),
    ),
    Mutant(
        "a removal does not look for what was published after it began",
        "store/removal.py",
        "(files.done, files.directory, files.done)",
        "(files.done, files.directory)",
        ("store/test_races.py::test_removal_takes_what_a_paused_owner_publishes_meanwhile",),
    ),
)
