"""One run on a slice that may be taken away at any time: start, watch, and what to do about each end."""

import signal
import time
from collections.abc import Sequence

from commands import INTERRUPTED, Commands, LaunchError
from supervise import PREEMPTED, RestartPolicy, group_code, supervise
from tpu_slice import ABSENT, READY, UNKNOWN, TpuSlice
from tpu_workers import Workers, start_line

UNREACHABLE = 255  # what ssh itself ends with
NOT_DELETED = 1


class TpuRun:
    """The same command on one slice after the other."""

    def __init__(self, commands: Commands, machine: TpuSlice, flags, command: Sequence[str]):
        self.commands = commands
        self.machine = machine
        self.flags = flags
        self.command = list(command)
        self.workers = Workers(commands, flags.name, machine.where)
        self.installed = False

    def supervised(self, policy: RestartPolicy) -> int:
        """Runs to the end by the policy, and deletes the slice however that came about. The last exit code."""
        code = INTERRUPTED
        deleted = True
        try:
            code = supervise(self.attempt, policy)
        except KeyboardInterrupt:
            code = self.stop()
        finally:
            deleted = self.clean_up()
        return code if deleted else NOT_DELETED

    def attempt(self) -> int:
        """From whatever is there to the end of the command; PREEMPTED also if the slice was taken away."""
        flags = self.flags
        found = self.machine.make_ready()
        if not self.workers.insist("true", flags.ssh_tries, flags.wait_seconds):
            return self.lost("SSH is refused")
        if not (found and self.is_running()):
            if not self.installed:
                self.workers.install(flags.wheel, flags.package, flags.extras, flags.python)
                self.installed = True
            if not self.workers.insist(start_line(self.command), flags.ssh_tries, flags.wait_seconds):
                return self.lost("it cannot be started")
        tail = " ".join(["gcloud compute tpus tpu-vm ssh", flags.name, *self.machine.where])
        self.commands.say(f"{flags.name}: started; its log: {tail} --command='tail -f musicssl-launch/log'")
        return self.watch()

    def is_running(self) -> bool:
        """Whether an earlier launcher's run is still there, to be taken over."""
        return "running" in (self.workers.states(dry="idle") or [])

    def watch(self) -> int:
        """Polls until all workers have ended, or the slice was taken away; the group's exit code."""
        silent = 0
        deadline = float("inf")
        while True:
            state = self.machine.state()
            if state in (ABSENT, "DELETING"):
                raise LaunchError(f"{self.flags.name} was deleted by somebody else; the run's checkpoints are left", 1)
            if state not in (*READY, UNKNOWN):
                return self.lost("it was preempted")
            states = self.workers.states()
            # Where gcloud cannot be asked either, it is this side that is cut off: the run goes on without us.
            silent = silent + 1 if states is None and state in READY else 0
            if silent >= self.flags.ssh_tries:
                return self.lost("no answer over SSH")
            codes = [code for code in states or [] if isinstance(code, int)]
            if states and len(codes) == len(states):
                return group_code(codes)
            if any(codes):
                deadline = min(deadline, time.monotonic() + self.flags.grace_seconds)
            if time.monotonic() > deadline:
                self.commands.say(f"{self.flags.name}: killing those that are still running")
                self.workers.signal("KILL")
            time.sleep(self.flags.poll_seconds)

    def lost(self, why: str) -> int:
        """The slice as it is, is of no use. The next attempt makes a new one."""
        self.commands.say(f"{self.flags.name}: {why}; a new slice, and the same run")
        taken = self.machine.state() not in (*READY, UNKNOWN)
        self.installed = False
        self.machine.delete()
        return PREEMPTED if taken else UNREACHABLE

    def stop(self) -> int:
        """After Ctrl-C or SIGTERM: lets the run save. A second one ends the waiting."""
        if self.machine.held_since is None:
            return INTERRUPTED
        self.commands.say(f"{self.flags.name}: stopping; waiting up to {self.flags.grace_seconds:g} s for a checkpoint")
        try:
            if not self.workers.states():
                return INTERRUPTED
            self.workers.signal("TERM")
            end = time.monotonic() + self.flags.grace_seconds
            while time.monotonic() < end:
                states = self.workers.states() or []
                codes = [state for state in states if isinstance(state, int)]
                if states and len(codes) == len(states):
                    return group_code(codes)
                time.sleep(min(self.flags.poll_seconds, 5))
        except KeyboardInterrupt:
            pass
        return INTERRUPTED

    def clean_up(self) -> bool:
        """Deletes the slice, which no signal can keep it from. False if it may still be there."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if not self.machine.may_exist:
            return True
        if self.flags.keep:
            self.commands.say(
                f"{self.flags.name}: left as it is, and goes on to cost; the same line with --delete ends it"
            )
            return True
        try:
            self.machine.delete()
        except LaunchError as error:
            # Said here: what ended the run may be on its way up as an error of its own.
            self.commands.say(f"error: {error}")
            return False
        return True
