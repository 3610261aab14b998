// There is no Intl: dates are in UTC, and say so to who asks for another time zone instead of giving a wrong time.

const UTC = /^(etc\/)?(utc|gmt|uct|zulu|universal|greenwich)$|^(etc\/)?gmt[+-]?0$|^[+-]00(:?00)?$/i;

for (const name of ['toLocaleString', 'toLocaleDateString', 'toLocaleTimeString']) {
  const plain = Date.prototype[name];
  const { [name]: checked } = {
    [name](locales, options) {
      const zone = options?.timeZone;
      if (zone !== undefined && !UTC.test(asText(zone))) {
        throw new RangeError(`there is no time zone ${asText(zone)}, only UTC: bundle a library that brings its time zones`);
      }
      return plain.call(this);
    },
  };
  Object.defineProperty(Date.prototype, name, { value: checked, writable: true, configurable: true, enumerable: false });
}
