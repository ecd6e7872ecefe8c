-- Health of MeshStor's objects in Argo CD: one script for all kinds, since all say how they are by the same conditions.
--
-- Healthy: Ready. A copy that is being rebuilt does not change that; the message says it.
-- Progressing: the operator works on it, or has not looked at this generation yet.
-- Degraded: not Ready, and nothing of what is going on will change that, or a person is needed (Stalled).
--
-- Argo CD itself calls an object that is being deleted Progressing, and does not ask here. It loads neither `string` nor `math`.

local conditions = {}
local observed = nil
if obj.status ~= nil then
  observed = obj.status.observedGeneration
  for _, condition in ipairs(obj.status.conditions or {}) do
    conditions[condition.type] = condition
  end
end

local function is(type, status)
  return conditions[type] ~= nil and conditions[type].status == status
end

local function says(type)
  local message = conditions[type].message
  if message == nil or message == "" then
    return conditions[type].reason
  end
  return message
end

-- Conditions that may be bad while the object is Ready, and the status that is bad.
local besides = {
  { "Degraded", "True" },
  { "Replacing", "True" },
  { "Replacing", "False" },
  { "Resynced", "False" },
  { "AttachableAnywhere", "False" },
  { "PlacedByPolicy", "False" },
  { "Failing", "True" },
  { "EverythingOwned", "False" },
  { "DrivesUsable", "False" },
  { "AssemblyGuarded", "False" },
}

local function healthy()
  local all = { says("Ready") }
  for _, pair in ipairs(besides) do
    if is(pair[1], pair[2]) then
      table.insert(all, pair[1] .. ": " .. says(pair[1]))
    end
  end
  return { status = "Healthy", message = table.concat(all, "; ") }
end

if conditions.Ready == nil or observed == nil or observed < (obj.metadata.generation or 0) then
  return { status = "Progressing", message = "MeshStor has not looked at this generation of it yet" }
elseif is("Stalled", "True") then
  return { status = "Degraded", message = says("Stalled") }
elseif is("Ready", "True") then
  return healthy()
elseif is("Reconciling", "True") then
  return { status = "Progressing", message = says("Reconciling") }
elseif is("Ready", "Unknown") then
  return { status = "Progressing", message = says("Ready") }
end
return { status = "Degraded", message = says("Ready") }
