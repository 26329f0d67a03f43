-- The load of http.lua with a pause of 4 to 6 ms on each connection before the next request: every proxy
-- is given the same, and none has as much as it could take.
local here = debug.getinfo(1, "S").source:match("@(.*/)") or "./"
dofile(here .. "http.lua")

function delay()
   return math.random(4, 6)
end
