-- Leases a batch of one lane.
-- ARGV: now, end of the lease, most items, kind byte, nonce, concurrency of a lane at first (0: unlimited), most items
-- to move from `due` at once.
-- Returns {'batch', token, member, leases without an outcome, member, ...}, {'nothing', time of the next look or ''}, or
-- {'empty'} when the partition has lost its marker: it must be filled from Postgres.
local now, until_, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local concurrency, promote = tonumber(ARGV[6]), tonumber(ARGV[7])

if redis.call('EXISTS', marker) == 0 then return { 'empty' } end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, promote)) do
  redis.call('ZREM', due, member)
  push(member, now)
end

-- Whether the lane may have another batch; where not, it is looked at again when it may.
local function may_serve(lane)
  if concurrency == 0 then return true end
  local known = redis.call('HMGET', state(lane), 'suspended', 'blocked', 'limit')
  if known[1] then
    redis.call('ZREM', lanes, lane)
    return false
  end
  local blocked = tonumber(known[2] or 0)
  if blocked > now then
    redis.call('ZADD', lanes, blocked, lane)
    return false
  end
  redis.call('ZREMRANGEBYSCORE', slots(lane), '-inf', now)
  if redis.call('ZCARD', slots(lane)) >= tonumber(known[3] or concurrency) then
    redis.call('ZADD', lanes, redis.call('ZRANGE', slots(lane), 0, 0, 'WITHSCORES')[2], lane)
    return false
  end
  return true
end

-- Nothing is ready in the lane any more: it takes no room, and its turns begin anew.
local function empty(lane)
  redis.call('HDEL', state(lane), 'served')
  redis.call('DEL', flows(lane))
  redis.call('ZREM', lanes, lane)
end

local function grant(lane, popped)
  local token = ARGV[4] .. lane .. ARGV[5]
  local answer, leased = { 'batch', token }, {}
  for i = 1, #popped, 2 do
    local member = popped[i]
    local key = key_of(member)
    local entry = redis.call('HGET', lease, key)
    local count = math.min((entry and string.byte(entry, 18) or 0) + 1, 255)
    redis.call('HSET', lease, key, token .. string.char(count) .. flow_of(member))
    redis.call('ZADD', due, until_, member)
    leased[#leased + 1] = member
    answer[#answer + 1] = member
    answer[#answer + 1] = count
  end
  redis.call('SADD', batch(token), unpack(leased))
  -- The set only serves the lease; it must not outlive a worker that never reports.
  redis.call('PEXPIRE', batch(token), (until_ - now) * 2)
  if concurrency > 0 then redis.call('ZADD', slots(lane), until_, token) end
  local reached = popped[#popped]
  if redis.call('EXISTS', ready(lane)) == 1 then
    redis.call('HSET', state(lane), 'served', reached)
    redis.call('ZREMRANGEBYSCORE', flows(lane), '-inf', reached)
    -- Behind all lanes that wait.
    redis.call('ZADD', lanes, now, lane)
  else
    empty(lane)
  end
  return answer
end

-- How many of the popped items go together: what was leased twice without an outcome goes alone, lest what kills its
-- workers takes others with it. The rest goes back to its place.
local function together(popped)
  local count = #popped / 2
  for i = 1, count do
    local entry = redis.call('HGET', lease, key_of(popped[i * 2 - 1]))
    if entry and string.byte(entry, 18) >= 2 then
      count = math.max(i - 1, 1)
      break
    end
  end
  local some = {}
  for i = 1, #popped, 2 do
    if i <= count * 2 then
      some[#some + 1], some[#some + 2] = popped[i], popped[i + 1]
    else
      redis.call('ZADD', ready(lane_of(popped[i])), popped[i + 1], popped[i])
    end
  end
  return some
end

while true do
  -- A lane without limits is never looked at later, whatever its time says: clocks are set back.
  local lane
  if concurrency == 0 then
    lane = redis.call('ZRANGE', lanes, 0, 0)[1]
  else
    lane = redis.call('ZRANGEBYSCORE', lanes, '-inf', now, 'LIMIT', 0, 1)[1]
  end
  if not lane then break end
  if may_serve(lane) then
    local popped = redis.call('ZPOPMIN', ready(lane), most)
    if #popped > 0 then return grant(lane, together(popped)) end
    empty(lane)
  end
end

local next = math.huge
for _, set in ipairs({ due, lanes }) do
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if first then next = math.min(next, tonumber(first)) end
end
return { 'nothing', next == math.huge and '' or string.format('%.0f', next) }
