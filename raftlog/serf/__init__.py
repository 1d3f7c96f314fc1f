"""Who is there: membership by gossip, in the wire protocol of HashiCorp's memberlist and Serf, as a value.

`swim` is memberlist: who is alive, told by probes and rumours. On top of it `node` is Serf: who left on purpose, tags,
user events, queries. `codec` turns messages into packets and streams, compressed and encrypted.

Sources: Das, Gupta, Motivala, "SWIM" (2002); Dadgar, Phillips, Currey, "Lifeguard" (2017); the messages as memberlist
(protocol versions 1 to 5) and Serf (2 to 5) have them.
"""
