-- Schedules items.
-- ARGV: now, 'sooner' or a time, then member and time of each.
--   sooner: what waits is brought forward; what is leased comes again at that time, once its outcome is there.
--   a time: what is in the schedule stays as it is, unless it waits beyond that time: then it is brought forward. What
--   a replica has in hand waits, too, but not so long.
-- Returns how many are new or brought forward.
local now, sooner = tonumber(ARGV[1]), ARGV[2] == 'sooner'
local late = sooner and 0 or tonumber(ARGV[2])
local changed = 0
for i = 3, #ARGV, 2 do
  local member, at = ARGV[i], tonumber(ARGV[i + 1])
  local was = redis.call('ZSCORE', due, member)
  if was then
    was = tonumber(was)
    if sooner or was > late then
      local key = key_of(member)
      if redis.call('HEXISTS', lease, key) == 0 then
        if at < was then
          redis.call('ZREM', due, member)
          put(member, at, now)
          changed = changed + 1
        end
      elseif sooner then
        local known = tonumber(redis.call('HGET', again, key) or at)
        redis.call('HSET', again, key, string.format('%.0f', math.min(known, at)))
      end
    end
  elseif not redis.call('ZSCORE', ready(lane_of(member)), member) then
    put(member, at, now)
    changed = changed + 1
  end
end
return changed
