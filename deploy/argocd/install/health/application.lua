-- Health of an Application, so that a sync wave waits for what the Applications of earlier waves deploy. An
-- Application's own health is about what it last compared: while that is not what it is told now, it says nothing.
-- Runs with Lua's basic and table functions only.

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if not same(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

local function is(status, message)
  return {status = status, message = message or ""}
end

local spec, status = obj.spec, obj.status
if status == nil or status.sync == nil or status.health == nil or status.health.status == nil then
  return is("Progressing", "not looked at yet")
end
local compared = status.sync.comparedTo
if compared == nil or not same(compared.source, spec.source) or not same(compared.sources, spec.sources) then
  return is("Progressing", "not compared with its new source yet")
end
local operation = status.operationState
if obj.operation ~= nil or (operation ~= nil and operation.phase == "Running") then
  return is("Progressing", operation and operation.message or "about to be synced")
end
local policy = spec.syncPolicy
local automated = policy ~= nil and policy.automated ~= nil and policy.automated.enabled ~= false
if automated and status.sync.status ~= "Synced" then
  -- A sync that failed for good is a failure; one that is still to come, or cannot be compared now, is not.
  if operation ~= nil and (operation.phase == "Failed" or operation.phase == "Error") then
    return is("Degraded", operation.message)
  end
  return is("Progressing", "not synced yet")
end
return is(status.health.status, status.health.message)
