"""Mutants of the code that runs nodes: `get()`, the scheduler, the workers and `Runs`."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

COMPUTE, FAILURE, SCHEDULER = "node/compute.py", "node/failure.py", "execution/scheduler.py"
DISCOVERY, ELSEWHERE = "execution/discovery.py", "execution/elsewhere.py"
THREADS, CHILDREN = "execution/workers/threads.py", "execution/workers/children.py"
RUNS, PROGRESS = "service/runs.py", "service/progress.py"

RUNNING = (
    # ---- one node ----
    Mutant(
        "the main thread takes its steps itself",
        "_common/steps.py",
        "    if threading.current_thread() is not threading.main_thread():\n",
        "    if True:\n",
        ("common/test_steps.py::test_step_runs_to_its_end_if_its_caller_is_interrupted",),
    ),
    Mutant(
        "what a node's pool computes does not have the node's context",
        "node/threads.py",
        "        _wrap_submit(is_in_node)\n        _installed",
        "        _installed",
        ("faults/test_node_threads_and_forks.py::test_pool_that_nodes_share_uses_the_store_of_each",),
    ),
    Mutant(
        "a native cancellation of an async node is recorded as a failure",
        COMPUTE,
        "            cancelled = _is_interrupt(error) or _is_being_cancelled(error)\n",
        "            cancelled = _is_interrupt(error)\n",
        ("common/test_loops.py::test_async_node_of_a_run_that_the_end_of_the_loop_cancels_has_not_failed",),
    ),
    Mutant(
        "the claim of a dying owner is not waited for",
        FAILURE,
        "            if time.monotonic() > deadline:\n                raise\n",
        "            raise\n",
        ("workers/test_processes.py::test_claim_of_an_owner_that_is_dying_is_waited_for",),
    ),
    # ---- the scheduler ----
    Mutant(
        "a due retry starts though the run stops",
        SCHEDULER,
        "        if not self._stopping:\n            del self._delayed[job.key]\n",
        "        if True:\n            del self._delayed[job.key]\n",
        ("execution/test_policies.py::test_retry_that_is_due_while_the_run_stops_is_not_made",),
    ),
    Mutant(
        "what a node's own method raises ends the walk",
        DISCOVERY,
        "        except BaseException as error:  # from the node's",
        "        except ZeroDivisionError as error:  # from the node's",
        ("node/test_one_bad_node.py::test_exception_in_a_hook_fails_only_its_node",),
    ),
    Mutant(
        "a run that has ended is not taken off the list of waiters",
        ELSEWHERE,
        "        for end in self._held.pop(key, ()):\n",
        "        for end in self._held.pop(key, ())[1:]:\n",
        (
            "execution/test_elsewhere.py::test_run_that_has_ended_is_not_kept_by_the_node_that_it_waited_for",
        ),
    ),
    Mutant(
        "a look at a node of another process overtakes the one before",
        ELSEWHERE,
        "        return self._next_round if self._polled and not self._round else math.inf\n",
        "        return self._next_round if self._polled else math.inf\n",
        ("execution/test_elsewhere.py::test_round_of_polling_begins_when_the_round_before_has_ended",),
    ),
    Mutant(
        "a circle of waits is not found",
        "node/waiting.py",
        "            if path is not None:\n",
        "            if False:\n",
        ("node/test_waiting.py::test_node_that_runs_itself_is_a_cycle",),
    ),
    # ---- the workers ----
    Mutant(
        "serial mode goes on after a job that failed",
        THREADS,
        "        self._held |= self._runner is thread and not outcome.went_well\n",
        "",
        (
            "workers/test_threads.py::test_nothing_begins_serially_after_a_failure_that_the_loop_does_not_know",
        ),
    ),
    Mutant(
        "a thread that cannot start stays counted",
        THREADS,
        "        self._entered -= 1\n",
        "",
        ("workers/test_threads.py::test_thread_that_cannot_be_started_is_not_counted",),
    ),
    Mutant(
        "the waker forgets what comes while it runs",
        "_common/loops.py",
        "            self._pending = False\n        self._context.run(self._function)\n",
        "            self._context.run(self._function)\n            self._pending = False\n",
        ("common/test_waker.py::test_wake_while_the_function_runs_calls_it_again",),
    ),
    Mutant(
        "the start of a child is not shielded",
        CHILDREN,
        "child = await in_thread(_spawn)",
        "child = await anyio.to_thread.run_sync(_spawn, abandon_on_cancel=True)",
        ("workers/test_children.py::test_start_that_is_cancelled_leaves_no_process",),
    ),
    Mutant(
        "the programs of a killed child live on",
        CHILDREN,
        "os.killpg(self._process.pid, signal.SIGKILL)",
        "self._process.kill()",
        ("workers/test_node_programs.py::test_timeout_kills_the_programs_of_the_node",),
    ),
    Mutant(
        "a child that died before it began fails its node",
        CHILDREN,
        "        begun = False\n        try:\n",
        "        begun = True\n        try:\n",
        ("workers/test_children.py::test_idle_child_that_was_killed_fails_no_node",),
    ),
    # ---- Runs ----
    Mutant(
        "a stop before the block is forgotten",
        RUNS,
        "        self._stopping = True\n        if self._stop_waker",
        "        self._stopping = self._stop_waker is not None\n        if self._stop_waker",
        ("service/test_runs_stopped.py::test_stop_before_the_block_is_remembered",),
    ),
    Mutant(
        "the first follower that leaves cancels the run of all",
        RUNS,
        'if not run._followers and run.on_disconnect == "cancel":',
        'if run.on_disconnect == "cancel":',
        ("service/test_runs.py::test_run_goes_on_for_the_followers_that_stay",),
    ),
    Mutant(
        "a run whose task never began is not settled",
        RUNS,
        "            for run in self.live():  # their tasks were cancelled before they could begin\n"
        "                self._settle(run)\n",
        "            pass\n",
        (
            "service/test_runs_cancelled.py::test_task_of_a_run_that_is_cancelled_before_it_begins_is_settled",
        ),
    ),
    Mutant(
        "a snapshot has the number of a change that it has not seen",
        PROGRESS,
        "Snapshot(self.last_change, +",
        "Snapshot(self.last_change + 1, +",
        ("web/test_run_page.py::test_page_and_stream_together_miss_nothing_whenever_the_page_is_made",),
    ),
)
