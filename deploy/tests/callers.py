"""Values with a listener in front of the agent."""

CALLED = {
    "inbound": {
        "enabled": True,
        "to": "http://agent.agents.svc.cluster.local:3000",
        "targetPort": 3000,
        "namespaces": ["operations"],
        "issuers": [{"issuer": "https://idp.example.org", "audience": "agent"}],
        "hosts": ["agent.example.org"],
        "exempt": [{"paths": ["/healthz"]}],
    }
}


def called(**changes):
    return {"inbound": {**CALLED["inbound"], **changes}}
