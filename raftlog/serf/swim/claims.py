"""Claims about members: taken in if they beat what is known, refuted if they are about this node, waited out.

Source: SWIM 4.2; Lifeguard IV-B.
"""

from __future__ import annotations

from dataclasses import replace

from raftlog.serf.codec.swim import encode
from raftlog.serf.config import META_BYTES_MAX, SwimConfig
from raftlog.serf.messages import Address, Alive, Dead, State, Suspect, Versions
from raftlog.serf.swim.above import Above
from raftlog.serf.swim.awareness import Awareness
from raftlog.serf.swim.members import INCARNATION_MAX, NAME_BYTES_MAX, Members, SwimMember
from raftlog.serf.swim.post import Post
from raftlog.serf.swim.precedence import Verdict, verdict
from raftlog.serf.swim.rumours import Rumours
from raftlog.serf.swim.suspicion import Suspicion, Suspicions, confirmations_wanted, timeout_s_min


class Claims:
    """The only one that changes members, and whoever counts this node's incarnations.

    An incarnation never goes back, of no member. Whoever comes back with a lower one than was known (it was stopped and
    started anew, at its old address or another) is told that it is suspected at the known one, and refutes with the next.
    """

    def __init__(
        self,
        config: SwimConfig,
        name: str,
        members: Members,
        rumours: Rumours,
        awareness: Awareness,
        post: Post,
        above: Above,
    ) -> None:
        self._config = config
        self._name = name
        self._members = members
        self._rumours = rumours
        self._awareness = awareness
        self._post = post
        self._above = above
        self.suspicions = Suspicions()
        self.has_left = False  # moved by `leave` only; then this node refutes nothing

    @property
    def own(self) -> SwimMember:
        return self._members[self._name]

    def start(self, address: Address, meta: bytes, versions: Versions, now: float) -> None:
        own = SwimMember(
            name=self._name, address=address, meta=meta, incarnation=1, state=State.ALIVE,
            versions=versions, changed_at=now,
        )  # fmt: skip
        self._members.put(own)
        self._tell(_alive(own))
        self._above.joined(own)

    def set_meta(self, meta: bytes) -> None:
        self._announce(replace(self.own, meta=meta), above=self.own.incarnation)
        self._above.updated(self.own)

    def leave(self, now: float) -> None:
        self.has_left = True
        self._tell(Dead(self.own.incarnation, self._name, accuser=self._name))
        self._members.put(replace(self.own, state=State.LEFT, changed_at=now))
        self._above.left(self.own)

    # ── alive ──

    def take_alive(self, alive: Alive, now: float) -> None:
        why = _unfit(alive)
        if why:
            self._post.refuse(why, now, sender=alive.node[:NAME_BYTES_MAX])
        elif alive.node == self._name:
            self._hear_of_this_node(alive, now)
        elif self._above.refuses(alive):
            self._post.refuse("refused by the application", now, sender=alive.node)
        else:
            self._hear_of_another(alive, now)

    def _hear_of_this_node(self, alive: Alive, now: float) -> None:
        own = self.own
        if self.has_left or alive.incarnation < own.incarnation:
            return
        if alive.address != own.address:
            self._conflict(own, alive, now)
        elif (alive.incarnation, alive.meta, alive.versions) != (own.incarnation, own.meta, own.versions):
            self._refute(alive.incarnation)  # of a former life, or by another of the name

    def _hear_of_another(self, alive: Alive, now: float) -> None:
        known = self._members.get(alive.node)
        if known is not None:
            if known.address != alive.address and not self._is_name_free(known, now):
                self._conflict(known, alive, now)
                return
            if self._verdict(State.ALIVE, alive.incarnation, known) is Verdict.IGNORE:
                if known.is_gone:
                    self._post.send(alive.address, Suspect(known.incarnation, alive.node, accuser=self._name))
                return
        member = SwimMember(
            name=alive.node, address=alive.address, meta=alive.meta, incarnation=alive.incarnation,
            state=State.ALIVE, versions=alive.versions,
            changed_at=known.changed_at if known is not None and known.state is State.ALIVE else now,
        )  # fmt: skip
        if not self._members.put(member):
            self._post.refuse("no room for more members", now, sender=alive.node)
            return
        self.suspicions.end(alive.node)
        self._tell(alive)
        if known is None or known.is_gone:
            self._above.joined(member)
        elif (known.address, known.meta, known.versions) != (alive.address, alive.meta, alive.versions):
            self._above.updated(member)

    def _is_name_free(self, known: SwimMember, now: float) -> bool:
        """Whether another address may have the name: its owner left, or is dead for so long that nobody tells it."""
        if known.state is State.DEAD:
            reclaim_s = self._config.dead_reclaim_s or self._config.gossip_to_the_dead_s
            return now - known.changed_at > reclaim_s
        return known.state is State.LEFT

    def _conflict(self, known: SwimMember, alive: Alive, now: float) -> None:
        self._post.refuse("name of another address", now, sender=alive.address, detail=known.name)
        self._above.conflicts(known, alive)

    # ── suspect ──

    def suspect(self, name: str, incarnation: int, now: float) -> None:
        """By this node."""
        self.take_suspect(Suspect(incarnation, name, accuser=self._name), now)

    def take_suspect(self, suspect: Suspect, now: float) -> None:
        known = self._members.get(suspect.node)
        if known is None:
            return
        if suspect.node == self._name:
            self._hear_accusation(suspect.incarnation)
            return
        match self._verdict(State.SUSPECT, suspect.incarnation, known):
            case Verdict.IGNORE:
                return
            case Verdict.CONFIRM:
                if self.suspicions.confirm(suspect.node, suspect.accuser):
                    self._tell(suspect)
            case Verdict.TAKE:
                self._tell(suspect)
                self._members.put(
                    replace(known, state=State.SUSPECT, incarnation=suspect.incarnation, changed_at=now)
                )
                self._start_suspicion(suspect, now)

    def _start_suspicion(self, suspect: Suspect, now: float) -> None:
        config, count = self._config, self._members.count
        s_min = timeout_s_min(config.suspicion_mult, count, config.probe_interval_s)
        suspicion = Suspicion(
            suspect.accuser,
            wanted=confirmations_wanted(config.suspicion_mult, count),
            s_min=s_min,
            s_max=config.suspicion_max_timeout_mult * s_min,
            now=now,
        )
        self.suspicions.start(suspect.node, suspicion)

    def end_suspicions(self, now: float) -> None:
        """Whoever has not refuted in its time is dead."""
        for name, confirmations in self.suspicions.over(now):
            self._post.note("member did not refute", member=name, confirmations=confirmations)
            self.take_dead(Dead(self._members[name].incarnation, name, accuser=self._name), now)

    # ── dead ──

    def take_dead(self, dead: Dead, now: float) -> None:
        known = self._members.get(dead.node)
        if known is None:
            return
        if known.state is State.ALIVE and dead.incarnation < known.incarnation:
            # Whoever believes it missed the refutation, whose rumour is over: else it would until an exchange of states.
            self._tell(_alive(known))
            return
        if dead.node == self._name:
            self._hear_accusation(dead.incarnation)
            return
        state = State.LEFT if dead.node == dead.accuser else State.DEAD
        if self._verdict(state, dead.incarnation, known) is Verdict.IGNORE:
            return
        self.suspicions.end(dead.node)
        self._tell(dead)
        self._members.put(replace(known, state=state, incarnation=dead.incarnation, changed_at=now))
        self._above.left(self._members[dead.node])

    # ── this node ──

    def _hear_accusation(self, incarnation: int) -> None:
        """That this node is suspected or dead: refute, unless it is about a former incarnation."""
        if not self.has_left and incarnation >= self.own.incarnation:
            self._refute(incarnation)

    def _refute(self, incarnation: int) -> None:
        """Be alive at a newer one than this. Having to is a sign of this node's ill health (Lifeguard IV-A).

        INCARNATION_MAX cannot be beaten: a node that is accused at it is dead for the others until they forget it,
        gossip_to_the_dead_s later; then they take it in at INCARNATION_MAX again.
        """
        self._awareness.change(1)
        self._announce(self.own, above=max(incarnation, self.own.incarnation))
        self._post.note("refuted", accused=incarnation, incarnation=self.own.incarnation)

    def _announce(self, own: SwimMember, *, above: int) -> None:
        self._members.put(replace(own, incarnation=min(above + 1, INCARNATION_MAX)))
        self._tell(_alive(self.own))

    def _verdict(self, claim: State, incarnation: int, known: SwimMember) -> Verdict:
        return verdict(claim, incarnation, known=known.state, incarnation=known.incarnation)

    def _tell(self, claim: Alive | Suspect | Dead) -> None:
        self._rumours.put(claim.node, encode(claim))


def _alive(member: SwimMember) -> Alive:
    return Alive(member.incarnation, member.name, member.address, member.meta, member.versions)


def _unfit(alive: Alive) -> str:
    """Why nobody can be so; empty if somebody can."""
    if not 0 < len(alive.node.encode()) <= NAME_BYTES_MAX:
        return "name empty or too long"
    if len(alive.meta) > META_BYTES_MAX:
        return "meta too large"
    if not 0 < alive.versions.protocol_min <= alive.versions.protocol_max:
        return "versions make no sense"
    return ""
