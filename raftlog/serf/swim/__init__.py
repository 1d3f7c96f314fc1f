"""memberlist: who is alive, told by probes and rumours.

`node` is the whole. What it is made of: `precedence` says which claim about a member beats what is known, `members` keeps
what is known, `claims` takes claims in, refutes those about this node and waits out suspicions. `probing` finds the dead,
`relaying` pings for others, `exchange` compares whole states, `gossip` tells rumours, `post` makes packets.

Sources: Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol" (DSN
2002), called SWIM below; Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection"
(2018), called Lifeguard; and what memberlist does where they leave it open.
"""
