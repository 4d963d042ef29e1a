"""Requests whose parts occur more than once, as `mixins/result-store/shared-parts.ts` writes them."""

SHARED = "noetl:shared"
AT = "noetl:at"


def whole(read):
    """What was written. Each place has maps and lists of its own; only long texts are shared."""
    parts = read.get(SHARED)
    if not isinstance(parts, list):
        return read
    root = [read["value"]]
    # Without parts it is a value that uses these words itself.
    left = [root] if parts else []
    while left:
        place = left.pop()
        for key, member in place.items() if isinstance(place, dict) else enumerate(place):
            if isinstance(member, dict) and isinstance(member.get(AT), int):
                member = parts[member[AT]]
            if isinstance(member, (dict, list)):
                member = member.copy()
                left.append(member)
            place[key] = member
    return root[0]
