-- What all scripts share; put before each of them. KEYS[1] is the `due` of a partition. All other keys of the partition
-- begin as it does, hash tag included, so a script touches one slot only. The README has the table of keys.
local due = KEYS[1]
local base = string.sub(due, 1, -4)
local lanes = base .. 'lanes'
local lease = base .. 'lease'
local again = base .. 'again'
local marker = base .. 'filled'

local function lane_of(member) return string.sub(member, 17, 24) end
local function flow_of(member) return string.sub(member, 25, 32) end
local function group_of(member) return string.sub(member, 25, 28) end
local function key_of(member) return string.sub(member, 1, 24) end
local function ready(lane) return base .. 'ready:' .. lane end
local function flows(lane) return base .. 'flows:' .. lane end
local function state(lane) return base .. 'lane:' .. lane end
local function slots(lane) return base .. 'slots:' .. lane end
local function batch(token) return base .. 'batch:' .. token end

-- How far each lane has been served, in virtual time, once read in this script.
local served = {}

-- Puts an item among those that are ready. Flows take turns: an item's place in line is one after its flow's last one,
-- but not before what has been served already (self-clocked fair queueing), so ten thousand items of one flow do not
-- stand before one item of another. Of one group no more than 64 flows begin in one turn: a mailing that has a sender for
-- each of its items (VERP) is no ten thousand flows.
local function push(member, now)
  local lane, flow, group = lane_of(member), flow_of(member), group_of(member)
  if not served[lane] then
    served[lane] = tonumber(redis.call('HGET', state(lane), 'served') or 0)
  end
  local last = tonumber(redis.call('ZSCORE', flows(lane), flow) or 0)
  local place = last + 1
  if last <= served[lane] then
    local begun = tonumber(redis.call('ZSCORE', flows(lane), group) or 0)
    place = math.max(served[lane] + 1, begun + 1 / 64)
    redis.call('ZADD', flows(lane), place, group)
  end
  redis.call('ZADD', flows(lane), place, flow)
  redis.call('ZADD', ready(lane), place, member)
  redis.call('ZADD', lanes, 'NX', now, lane)
end

-- Makes an item due at a time: ready if that is now.
local function put(member, at, now)
  if at <= now then push(member, now) else redis.call('ZADD', due, at, member) end
end

-- The token of a lease entry.
local function token_of(entry) return string.sub(entry, 1, 17) end
